/* Makes the FIFO and opens it, which waits for a reader; writes one string with its NUL, and ends. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv) {
    const char *message = "Hello from the writer";
    if (argc != 2) return 2;
    mkfifo(argv[1], 0666);
    printf("opening\n");
    fflush(stdout);
    int fd = open(argv[1], O_WRONLY);
    if (fd < 0) return 1;
    write(fd, message, strlen(message) + 1);
    close(fd);
    return 0;
}
