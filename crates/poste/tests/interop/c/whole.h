/* All of standard input in memory, and all of a buffer out: what the programs of the table share. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void fail(const char *what) {
    perror(what);
    exit(1);
}

static inline char *whole_input(size_t *size) {
    char *bytes = malloc(4 << 20);
    *size = fread(bytes, 1, 4 << 20, stdin);
    return bytes;
}

static inline void write_all(int fd, const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, bytes, size);
        if (n < 0) fail("write");
        bytes += n;
        size -= n;
    }
}

static inline void copy(int from, int to) {
    char buffer[256];
    ssize_t n;
    while ((n = read(from, buffer, sizeof buffer)) > 0) write_all(to, buffer, n);
    if (n < 0) fail("read");
}
