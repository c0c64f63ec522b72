"""The wire probe: when each TCP segment of the selected flows reached this host, as the kernel or the NIC says."""
