/* SPDX-License-Identifier: Apache-2.0
 *
 * bcc compiles as the kernel is compiled, without the C library's headers: the kernel's own have these types.
 */
#include <linux/types.h>
