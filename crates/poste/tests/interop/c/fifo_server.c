/* Serves COUNT requests, and opens the FIFO anew for each: fifo_server PATH COUNT. A client that still
 * has it open when we do so is no request: the read ends with 0 when it closes. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    for (int served = 0; served < atoi(argv[2]);) {
        char buffer[256];
        int fd = open(argv[1], O_RDONLY);
        if (fd < 0) return 1;
        ssize_t n = read(fd, buffer, sizeof buffer);
        close(fd);
        if (n <= 0) continue;
        printf("request: %s (%zd bytes)\n", buffer, n);
        fflush(stdout);
        served++;
    }
    return 0;
}
