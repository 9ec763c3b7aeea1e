#include <stdio.h>

int main(void)
{
    puts("Hello from an image made from scratch.");
    return 0;
}
