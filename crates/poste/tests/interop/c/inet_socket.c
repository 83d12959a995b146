/* inet_socket tcp|udp send|receive HOST PORT */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include "whole.h"

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int type = strcmp(argv[1], "tcp") ? SOCK_DGRAM : SOCK_STREAM;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[4]))};
    inet_pton(AF_INET, argv[3], &address.sin_addr);
    int fd = socket(AF_INET, type, 0);
    if (fd < 0) fail("socket");
    if (strcmp(argv[2], "send") == 0) {
        size_t size;
        char *body = whole_input(&size);
        if (type == SOCK_DGRAM) {
            if (sendto(fd, body, size, 0, (struct sockaddr *)&address, sizeof address) < 0) fail("sendto");
            return 0;
        }
        if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
        write_all(fd, body, size);
        close(fd);
        return 0;
    }
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
    if (type == SOCK_DGRAM) {
        static char buffer[65536];
        ssize_t n = recvfrom(fd, buffer, sizeof buffer, 0, NULL, NULL);
        if (n < 0) fail("recvfrom");
        write_all(1, buffer, n);
        return 0;
    }
    if (listen(fd, 5) < 0) fail("listen");
    int client = accept(fd, NULL, NULL);
    if (client < 0) fail("accept");
    copy(client, 1);
    return 0;
}
