/* copy: standard input to standard output, 256 bytes at a time. */
#include "whole.h"

int main(void) {
    copy(0, 1);
    return 0;
}
