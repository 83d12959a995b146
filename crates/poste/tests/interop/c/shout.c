/* Answers each string on IN with the same in capitals on OUT, NUL included: shout IN OUT. With two
 * pipes they differ, with a socket pair they are the same. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int in = atoi(argv[1]), out = atoi(argv[2]);
    char buffer[256];
    ssize_t n;
    while ((n = read(in, buffer, sizeof buffer)) > 0) {
        for (ssize_t i = 0; i < n; i++) buffer[i] = toupper((unsigned char)buffer[i]);
        write(out, buffer, n);
    }
    return 0;
}
