#include <stdio.h>

int main(void)
{
    printf("Compiled by gcc %s, in an image packed from the machine it ran on.\n", __VERSION__);
    return 0;
}
