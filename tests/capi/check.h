/* Checks that end a program with the line they stand on, and parts of prompts. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <flamant.h>

#define CHECK(condition) ((condition) ? (void)0 : fail(__FILE__, __LINE__, #condition))
#define EXPECT(status, call) ((void)expect(status, status, call, __FILE__, __LINE__, #call))
#define EXPECT_EITHER(status, other, call) expect(status, other, call, __FILE__, __LINE__, #call)

static inline void fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s does not hold; last error: %s\n", file, line, what, flamant_last_error());
    abort();
}

static inline flamant_status expect(flamant_status status, flamant_status other, flamant_status found, const char *file,
                                    int line, const char *call)
{
    if (found != status && found != other) {
        fprintf(stderr, "%s:%d: %s: expected %s, found %s: %s\n", file, line, call, flamant_status_name(status),
                flamant_status_name(found), flamant_last_error());
        abort();
    }
    return found;
}

static inline flamant_part text_part(const char *text)
{
    flamant_part part = {0};
    part.kind = FLAMANT_PART_TEXT;
    part.data = text;
    part.length = strlen(text);
    return part;
}

static inline flamant_part pixels_part(const unsigned char *pixels, uint32_t width, uint32_t height)
{
    flamant_part part = {0};
    part.kind = FLAMANT_PART_PIXELS;
    part.width = width;
    part.height = height;
    part.data = pixels;
    part.length = (size_t)3 * width * height;
    return part;
}

static inline flamant_part video_part(const flamant_part *frames, size_t count)
{
    flamant_part part = {0};
    part.kind = FLAMANT_PART_VIDEO;
    part.data = frames;
    part.length = count;
    return part;
}

#endif
