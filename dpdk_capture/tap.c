/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "dpdk_capture/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Only what differs is set: a change of address or MTU is felt by the connections of a device that is in use. */
static int configure(const struct tp_tap_settings *settings, const char **what) {
    struct ifreq request = {0};
    int error = 0;

    *what = "cannot open a socket for its settings";
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0)
        return -errno;
    memcpy(request.ifr_name, settings->name, sizeof(settings->name));

    *what = "cannot give it the port's MAC address";
    if (ioctl(control, SIOCGIFHWADDR, &request))
        goto failed;
    if (memcmp(request.ifr_hwaddr.sa_data, settings->mac, sizeof(settings->mac)) != 0) {
        request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
        memcpy(request.ifr_hwaddr.sa_data, settings->mac, sizeof(settings->mac));
        if (ioctl(control, SIOCSIFHWADDR, &request))
            goto failed;
    }
    *what = "cannot give it the port's MTU";
    if (ioctl(control, SIOCGIFMTU, &request))
        goto failed;
    if (request.ifr_mtu != (int)settings->mtu_bytes) {
        request.ifr_mtu = (int)settings->mtu_bytes;
        if (ioctl(control, SIOCSIFMTU, &request))
            goto failed;
    }
    *what = "cannot set it up";
    if (ioctl(control, SIOCGIFFLAGS, &request))
        goto failed;
    if (!settings->keep_down && !(request.ifr_flags & IFF_UP)) {
        request.ifr_flags |= IFF_UP;
        if (ioctl(control, SIOCSIFFLAGS, &request))
            goto failed;
    }
    goto cleanup;

failed:
    error = -errno;
cleanup:
    close(control);
    return error;
}

int tp_tap_attach(const struct tp_tap_settings *settings, int *out, const char **what) {
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    if (settings->multi_queue)
        request.ifr_flags |= IFF_MULTI_QUEUE;
    memcpy(request.ifr_name, settings->name, sizeof(settings->name));
    int header_bytes = sizeof(struct virtio_net_hdr);
    int error;

    *what = "cannot open /dev/net/tun";
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    *what = "cannot attach to it";
    if (ioctl(fd, TUNSETIFF, &request))
        goto failed;
    *what = "cannot agree with it on the header before frames";
    if (ioctl(fd, TUNSETVNETHDRSZ, &header_bytes))
        goto failed;
    /* Checksums alone: what is announced beyond that, TSO above all, would come as frames that no port can send. */
    *what = "cannot say to it what is left to us";
    if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM))
        goto failed;
    error = configure(settings, what);
    if (error)
        goto cleanup;
    *what = "cannot make it persistent";
    if (ioctl(fd, TUNSETPERSIST, 1))
        goto failed;
    *out = fd;
    return 0;

failed:
    error = -errno;
cleanup:
    close(fd);
    return error;
}

int tp_tap_forget(int fd) {
    return ioctl(fd, TUNSETPERSIST, 0) ? -errno : 0;
}
