#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Greets its first argument in every language of the list, and says who it runs as. */
int main(int argc, char **argv) {
	const char *who = argc > 1 ? argv[1] : "nobody";
	FILE *list = fopen("/usr/local/share/greetings.txt", "r");
	char line[128];

	if (list == NULL) {
		perror("greetings.txt");
		return 1;
	}
	printf("greeter %s, user id %d\n", VERSION, (int)getuid());
	while (fgets(line, sizeof line, list) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		printf("%s, %s!\n", line, who);
	}
	fclose(list);
	return 0;
}
