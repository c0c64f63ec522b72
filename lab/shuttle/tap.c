/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "lab/shuttle/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int set_gro(struct ifreq *request, bool on) {
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0)
        return -errno;
    struct ethtool_value value = {.cmd = ETHTOOL_SGRO, .data = on};
    request->ifr_data = (char *)&value;
    int error = ioctl(control, SIOCETHTOOL, request) ? -errno : 0;
    close(control);
    return error;
}

int tp_tap_open(struct tp_tap *tap, const char *device, bool gro, const char **what) {
    struct ifreq request = {0};
    strncpy(request.ifr_name, device, sizeof request.ifr_name - 1);

    *what = "cannot make a network namespace";
    if (unshare(CLONE_NEWNET))
        return -errno;
    *what = "cannot open the new network namespace";
    tap->namespace_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (tap->namespace_fd < 0)
        return -errno;
    *what = "cannot open /dev/net/tun";
    tap->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (tap->fd < 0)
        return -errno;
    *what = "cannot make a TAP";
    request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (gro ? IFF_NAPI : 0));
    if (ioctl(tap->fd, TUNSETIFF, &request))
        return -errno;
    *what = "cannot switch GRO of the TAP";
    return set_gro(&request, gro);
}
