/* Asks what stands on standard input, waits for the answer without closing, and prints it:
 * unix_client PATH [seqpacket]. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char buffer[256];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc < 2) return 2;
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, argc > 2 ? SOCK_SEQPACKET : SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) return 1;
    ssize_t n = read(0, buffer, sizeof buffer);
    write(fd, buffer, n);
    n = read(fd, buffer, sizeof buffer);
    if (n < 0) return 1;
    write(1, buffer, n);
    close(fd);
    return 0;
}
