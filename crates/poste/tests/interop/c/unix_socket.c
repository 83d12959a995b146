/* unix_socket stream|seqpacket|dgram send|receive PATH: with @, a name in the abstract space. */
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "whole.h"

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    int type = argv[1][0] == 'd' ? SOCK_DGRAM : strcmp(argv[1], "stream") ? SOCK_SEQPACKET : SOCK_STREAM;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, argv[3], sizeof address.sun_path - 1);
    socklen_t length = sizeof address;
    if (argv[3][0] == '@') {
        address.sun_path[0] = '\0';
        length = offsetof(struct sockaddr_un, sun_path) + strlen(argv[3]);
    }
    int fd = socket(AF_UNIX, type, 0);
    if (fd < 0) fail("socket");
    if (strcmp(argv[2], "send") == 0) {
        size_t size;
        char *body = whole_input(&size);
        if (connect(fd, (struct sockaddr *)&address, length) < 0) fail("connect");
        if (type == SOCK_STREAM) write_all(fd, body, size);
        else if (send(fd, body, size, 0) < 0) fail("send");
        close(fd);
        return 0;
    }
    if (bind(fd, (struct sockaddr *)&address, length) < 0) fail("bind");
    int from = fd;
    if (type != SOCK_DGRAM) {
        if (listen(fd, 5) < 0) fail("listen");
        from = accept(fd, NULL, NULL);
        if (from < 0) fail("accept");
    }
    if (type == SOCK_STREAM) {
        copy(from, 1);
    } else {
        static char buffer[65536];
        ssize_t n = recv(from, buffer, sizeof buffer, 0);
        if (n < 0) fail("recv");
        write_all(1, buffer, n);
    }
    return 0;
}
