/* Serves COUNT requests, and opens the FIFO anew for each: fifo_server PATH COUNT. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    for (int i = 0; i < atoi(argv[2]); i++) {
        char buffer[256];
        int fd = open(argv[1], O_RDONLY);
        if (fd < 0) return 1;
        ssize_t n = read(fd, buffer, sizeof buffer);
        close(fd);
        printf("request: %s (%zd bytes)\n", buffer, n);
        fflush(stdout);
    }
    return 0;
}
