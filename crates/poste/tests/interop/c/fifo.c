/* fifo send|receive PATH */
#include <fcntl.h>
#include "whole.h"

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int sends = strcmp(argv[1], "send") == 0;
    int fd = open(argv[2], sends ? O_WRONLY : O_RDONLY);
    if (fd < 0) fail("open");
    if (sends) copy(0, fd);
    else copy(fd, 1);
    close(fd);
    return 0;
}
