/* Sends one string and waits for the answer without closing: unix_client PATH. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char buffer[256] = {0};
    const char *message = "Hello from the client";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc != 2) return 2;
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) return 1;
    write(fd, message, strlen(message) + 1);
    ssize_t n = read(fd, buffer, sizeof buffer);
    printf("Server said: %s (%zd bytes)\n", buffer, n);
    close(fd);
    return 0;
}
