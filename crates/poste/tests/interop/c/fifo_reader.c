/* Opens the FIFO, reads once into 256 bytes, prints, and ends. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char buffer[256];
    if (argc != 2) return 2;
    mkfifo(argv[1], 0666);
    int fd = open(argv[1], O_RDONLY);
    if (fd < 0) return 1;
    ssize_t n = read(fd, buffer, sizeof buffer);
    printf("Received: %s (%zd bytes)\n", buffer, n);
    close(fd);
    return 0;
}
