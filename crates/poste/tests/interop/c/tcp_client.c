/* Asks what stands on standard input, waits for the answer without closing, and prints it:
 * tcp_client HOST PORT. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char buffer[1024];
    if (argc != 3) return 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) return 1;
    ssize_t n = read(0, buffer, sizeof buffer);
    send(fd, buffer, n, 0);
    n = read(fd, buffer, sizeof buffer);
    if (n < 0) return 1;
    write(1, buffer, n);
    close(fd);
    return 0;
}
