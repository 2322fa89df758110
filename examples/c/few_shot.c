/*
 * Three signs with made-up names are shown, a fourth drawing is to be named: by the model in the library, which has
 * never seen them. The answer comes letter by letter.
 *
 *     cc few_shot.c $(pkg-config --cflags --libs flamant) -o few_shot && ./few_shot
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <flamant.h>

enum { SIDE = 40, SIGNS = 3, BYTES = SIDE * SIDE * 3 };

static const char *const NAMES[SIGNS] = {"kep", "mul", "zon"};

/* Whether a point, from -1 to 1 both ways, is on the line of a sign. */
static int on_line(int sign, double x, double y)
{
    const double thick = 0.13;
    switch (sign) {
    case 0: { /* a ring */
        double squares = x * x + y * y;
        return squares < 0.75 * 0.75 && squares > (0.75 - 2 * thick) * (0.75 - 2 * thick);
    }
    case 1: /* a cross */
        return (x > -thick && x < thick && y > -0.8 && y < 0.8) || (y > -thick && y < thick && x > -0.8 && x < 0.8);
    default: /* a Z */
        return x > -0.7 && x < 0.7 &&
               ((y > -0.75 && y < -0.75 + 2 * thick) || (y < 0.75 && y > 0.75 - 2 * thick) ||
                (x + y > -1.4 * thick && x + y < 1.4 * thick && y > -0.75 && y < 0.75));
    }
}

/* Draws a sign in white on black, larger or smaller. */
static void draw(unsigned char *pixels, int sign, double size)
{
    for (int y = 0; y < SIDE; y++) {
        for (int x = 0; x < SIDE; x++) {
            double across = (2.0 * x + 1.0 - SIDE) / SIDE / size;
            double down = (2.0 * y + 1.0 - SIDE) / SIDE / size;
            memset(pixels + 3 * (y * SIDE + x), on_line(sign, across, down) ? 255 : 0, 3);
        }
    }
}

static void check(flamant_status status)
{
    if (status >= FLAMANT_INVALID_ARGUMENT) {
        fprintf(stderr, "%s: %s\n", flamant_status_name(status), flamant_last_error());
        exit(EXIT_FAILURE);
    }
}

static flamant_part text_part(const char *text)
{
    flamant_part part = {0};
    part.kind = FLAMANT_PART_TEXT;
    part.data = text;
    part.length = strlen(text);
    return part;
}

static flamant_part pixels_part(const unsigned char *pixels)
{
    flamant_part part = {0};
    part.kind = FLAMANT_PART_PIXELS;
    part.width = SIDE;
    part.height = SIDE;
    part.data = pixels;
    part.length = BYTES;
    return part;
}

static int on_event(const flamant_event *event, void *user)
{
    (void)user;
    switch (event->kind) {
    case FLAMANT_EVENT_TOKEN:
        fwrite(event->text.data, 1, event->text.length, stdout);
        fflush(stdout);
        break;
    case FLAMANT_EVENT_WRITTEN:
        printf("\n%zu tokens after a prompt of %zu with %zu images\n", event->token_count, event->prompt_tokens,
               event->images);
        break;
    case FLAMANT_EVENT_FAILED:
        fprintf(stderr, "%s\n", event->text.data);
        break;
    }
    return 0;
}

int main(void)
{
    if (flamant_abi_version() != FLAMANT_ABI_VERSION) {
        fprintf(stderr, "the library is another one than the header\n");
        return EXIT_FAILURE;
    }
    flamant_engine *engine = NULL;
    check(flamant_engine_open(NULL, &engine));

    static unsigned char images[SIGNS + 1][BYTES];
    char texts[SIGNS][8];
    flamant_part parts[2 * SIGNS + 1];
    for (int sign = 0; sign < SIGNS; sign++) {
        draw(images[sign], sign, 1.0);
        snprintf(texts[sign], sizeof texts[sign], "%s.", NAMES[sign]);
        parts[2 * sign] = pixels_part(images[sign]);
        parts[2 * sign + 1] = text_part(texts[sign]);
    }
    draw(images[SIGNS], 1, 0.9);
    parts[2 * SIGNS] = pixels_part(images[SIGNS]);

    const flamant_text stop = {".", 1};
    flamant_request request;
    check(flamant_request_init(&request, sizeof request));
    request.parts = parts;
    request.part_count = 2 * SIGNS + 1;
    request.max_new_tokens = 4;
    request.stop = &stop;
    request.stop_count = 1;

    printf("A ring is a %s, a cross is a %s, a Z is a %s. A smaller cross is a ", NAMES[0], NAMES[1], NAMES[2]);
    flamant_request_id id;
    check(flamant_engine_submit(engine, &request, &id));
    check(flamant_engine_run(engine, on_event, NULL));
    check(flamant_engine_free(engine));
    return EXIT_SUCCESS;
}
