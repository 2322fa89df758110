/* JPEG through libjpeg-turbo's own code, which the crate mozjpeg-sys compiles.
 *
 * Errors leave libjpeg by longjmp, as its authors mean them to, so nothing unwinds through C and a host program may be
 * compiled with panic = "abort". Nothing is kept between calls. src/image/jpeg.rs declares what is here. */

#include <limits.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "jpeglib.h"
#include "jerror.h"

typedef struct {
  uint32_t width, height;
  /* Of the pixels: 1 grey, 3 red, green, blue, 4 inks (cyan, magenta, yellow, black, as stored). */
  uint32_t channels;
  /* Whether all coefficients are held before the first row: progressive files and those with several scans. */
  uint32_t holds_coefficients;
  /* Why it failed; JMSG_LENGTH_MAX bytes, ends in 0. */
  char message[JMSG_LENGTH_MAX];
} flamant_jpeg;

typedef struct {
  struct jpeg_error_mgr manager;
  jmp_buf back;
  flamant_jpeg *jpeg;
  /* The data ended before an end-of-image marker. */
  int ended;
} errors;

typedef struct {
  struct jpeg_progress_mgr manager;
  int scans_max;
} progress;

typedef struct {
  struct jpeg_source_mgr manager;
  const uint8_t *rest;
  size_t rest_length;
} source;

static void fail(j_common_ptr common)
{
  errors *state = (errors *)common->err;
  state->manager.format_message(common, state->jpeg->message);
  longjmp(state->back, 1);
}

static void refuse(j_common_ptr common, const char *message)
{
  errors *state = (errors *)common->err;
  snprintf(state->jpeg->message, sizeof state->jpeg->message, "%s", message);
  longjmp(state->back, 1);
}

/* A warning after which pixels would be made up is an error; one about what lies outside of them is none. */
static void warn(j_common_ptr common, int level)
{
  errors *state = (errors *)common->err;
  if (level >= 0)
    return;
  switch (state->manager.msg_code) {
  case JWRN_JPEG_EOF:
    state->ended = 1;
    return;
  case JWRN_EXTRANEOUS_DATA: {
    /* Before a restart marker of a scan these are coded pixels that no block took; the arithmetic decoder may leave a
     * few. */
    j_decompress_ptr cinfo = (j_decompress_ptr)common;
    int marker = state->manager.msg_parm.i[1];
    if (marker >= 0xd0 && marker <= 0xd7 && cinfo->input_scan_number > 0 && !cinfo->arith_code)
      fail(common);
    return;
  }
  case JWRN_HIT_MARKER:
  case JWRN_HUFF_BAD_CODE:
  case JWRN_ARITH_BAD_CODE:
  case JWRN_MUST_RESYNC:
  case JWRN_BOGUS_PROGRESSION:
    fail(common);
  }
}

static void silent(j_common_ptr common)
{
  (void)common;
}

static void watch(j_common_ptr common)
{
  progress *limits = (progress *)common->progress;
  if (((j_decompress_ptr)common)->input_scan_number > limits->scans_max)
    refuse(common, "more scans than the limit");
}

static void nothing(j_decompress_ptr cinfo)
{
  (void)cinfo;
}

/* Hands the bytes on in pieces that are too short for the fast Huffman decoder, which reads codes that no table has as
 * zeros and does not say so. */
#define PIECE 511

static boolean next_piece(j_decompress_ptr cinfo)
{
  static const JOCTET end[] = { 0xff, JPEG_EOI };
  source *from = (source *)cinfo->src;
  size_t length = from->rest_length < PIECE ? from->rest_length : PIECE;
  if (length == 0) {
    WARNMS(cinfo, JWRN_JPEG_EOF);
    from->manager.next_input_byte = end;
    from->manager.bytes_in_buffer = sizeof end;
    return TRUE;
  }
  from->manager.next_input_byte = from->rest;
  from->manager.bytes_in_buffer = length;
  from->rest += length;
  from->rest_length -= length;
  return TRUE;
}

static void skip(j_decompress_ptr cinfo, long count)
{
  source *from = (source *)cinfo->src;
  size_t left = count > 0 ? (size_t)count : 0;
  size_t here = left < from->manager.bytes_in_buffer ? left : from->manager.bytes_in_buffer;
  from->manager.next_input_byte += here;
  from->manager.bytes_in_buffer -= here;
  left -= here;
  here = left < from->rest_length ? left : from->rest_length;
  from->rest += here;
  from->rest_length -= here;
}

/* Up to the first scan. The structs are the caller's. */
static void begin(j_decompress_ptr cinfo, source *from, const uint8_t *bytes, size_t length)
{
  from->manager.init_source = nothing;
  from->manager.fill_input_buffer = next_piece;
  from->manager.skip_input_data = skip;
  from->manager.resync_to_restart = jpeg_resync_to_restart;
  from->manager.term_source = nothing;
  from->manager.bytes_in_buffer = 0;
  from->manager.next_input_byte = NULL;
  from->rest = bytes;
  from->rest_length = length;
  cinfo->src = &from->manager;
  jpeg_read_header(cinfo, TRUE);
  switch (cinfo->num_components) {
  case 1:
    cinfo->out_color_space = JCS_GRAYSCALE;
    break;
  case 3:
    cinfo->out_color_space = JCS_RGB;
    break;
  case 4:
    cinfo->out_color_space = JCS_CMYK;
    break;
  default:
    refuse((j_common_ptr)cinfo, "a number of components other than 1, 3 and 4");
  }
}

/* Whether every coefficient has come: asked where the file ends too early, or in several scans. */
static void check_scans(j_decompress_ptr cinfo, const errors *state)
{
  for (int component = 0; component < cinfo->num_components; component++) {
    if (!cinfo->progressive_mode) {
      /* libjpeg keeps the table of a component from its first scan on. */
      if (cinfo->comp_info[component].quant_table == NULL)
        refuse((j_common_ptr)cinfo, "a component without a scan");
      continue;
    }
    for (int place = 0; place < (state->ended ? DCTSIZE2 : 1); place++) {
      int bits = cinfo->coef_bits[component][place];
      if (bits < 0 || (state->ended && bits > 0))
        refuse((j_common_ptr)cinfo, state->ended ? "Premature end of JPEG file" : "a component without a scan");
    }
  }
}

static void prepare(errors *state, flamant_jpeg *jpeg, struct jpeg_decompress_struct *cinfo)
{
  memset(cinfo, 0, sizeof *cinfo);
  cinfo->err = jpeg_std_error(&state->manager);
  state->manager.error_exit = fail;
  state->manager.emit_message = warn;
  state->manager.output_message = silent;
  state->jpeg = jpeg;
  state->ended = 0;
}

/* Reads the header. 1, or 0 with a message. */
int flamant_jpeg_header(const uint8_t *bytes, size_t length, flamant_jpeg *jpeg)
{
  struct jpeg_decompress_struct cinfo;
  errors state;
  source from;
  prepare(&state, jpeg, &cinfo);
  if (setjmp(state.back)) {
    jpeg_destroy_decompress(&cinfo);
    return 0;
  }
  jpeg_create_decompress(&cinfo);
  begin(&cinfo, &from, bytes, length);
  jpeg->width = cinfo.image_width;
  jpeg->height = cinfo.image_height;
  jpeg->channels = (uint32_t)cinfo.num_components;
  jpeg->holds_coefficients = jpeg_has_multiple_scans(&cinfo) != 0;
  jpeg_destroy_decompress(&cinfo);
  return 1;
}

/* Reads the pixels, rows from the top, into `pixels`, which has the size that the header tells. libjpeg's own memory
 * stays within `memory_max` bytes. 1, or 0 with a message. */
int flamant_jpeg_pixels(const uint8_t *bytes, size_t length, size_t memory_max, uint32_t scans_max, uint8_t *pixels,
                        flamant_jpeg *jpeg)
{
  struct jpeg_decompress_struct cinfo;
  errors state;
  source from;
  progress limits = { { .progress_monitor = watch }, (int)scans_max };
  prepare(&state, jpeg, &cinfo);
  if (setjmp(state.back)) {
    jpeg_destroy_decompress(&cinfo);
    return 0;
  }
  jpeg_create_decompress(&cinfo);
  cinfo.mem->max_memory_to_use = memory_max > LONG_MAX ? LONG_MAX : (long)memory_max;
  cinfo.progress = &limits.manager;
  begin(&cinfo, &from, bytes, length);
  if (cinfo.image_width != jpeg->width || cinfo.image_height != jpeg->height
      || (uint32_t)cinfo.num_components != jpeg->channels)
    refuse((j_common_ptr)&cinfo, "a header other than the one read before");
  jpeg_start_decompress(&cinfo);
  if (jpeg->holds_coefficients)
    check_scans(&cinfo, &state);
  size_t stride = (size_t)jpeg->width * jpeg->channels;
  while (cinfo.output_scanline < cinfo.output_height) {
    JSAMPROW row = pixels + cinfo.output_scanline * stride;
    jpeg_read_scanlines(&cinfo, &row, 1);
  }
  /* What follows the pixels is not read. */
  jpeg_destroy_decompress(&cinfo);
  return 1;
}
