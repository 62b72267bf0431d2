/*
 * CRC32C (Castagnoli, reflected, as iSCSI and ext4 use it).
 *
 * The crc32 instruction takes three cycles and can be issued every cycle: three lanes of the buffer run side by side,
 * and are joined by moving a lane's sum over as many zero bytes as follow it, which is linear: four table look-ups.
 * Without the instruction: eight table look-ups a word.
 */
#include <stdbool.h>
#include <string.h>

#include "image.h"

#define POLYNOMIAL 0x82f63b78u
#define LANE_LONG  8192 /* powers of two, multiples of 8 */
#define LANE_SHORT 256

static uint32_t bytes_table[8][256]; /* [i][b]: the sum of byte b followed by i zero bytes */

static void make_bytes_table(void)
{
	for (uint32_t b = 0; b < 256; b++) {
		uint32_t crc = b;
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
		bytes_table[0][b] = crc;
	}
	for (int i = 1; i < 8; i++)
		for (uint32_t b = 0; b < 256; b++) {
			uint32_t crc = bytes_table[i - 1][b];
			bytes_table[i][b] = crc >> 8 ^ bytes_table[0][crc & 0xff];
		}
}

static uint32_t crc_by_table(uint32_t crc, const unsigned char *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t w;
		memcpy(&w, p, 8);
		w ^= crc;
		crc = 0;
		for (int i = 0; i < 8; i++)
			crc ^= bytes_table[7 - i][w >> 8 * i & 0xff];
	}
	for (; len; p++, len--)
		crc = crc >> 8 ^ bytes_table[0][(crc ^ *p) & 0xff];
	return crc;
}

#ifdef __x86_64__
#include <nmmintrin.h>

/* [i][b]: the sum that has b as its byte i and zeros else, moved over one lane of zero bytes */
static uint32_t over_long[4][256], over_short[4][256];

static uint32_t apply(const uint32_t op[32], uint32_t v)
{
	uint32_t r = 0;
	for (int i = 0; v; i++, v >>= 1)
		if (v & 1)
			r ^= op[i];
	return r;
}

static void make_shift_table(uint32_t table[4][256], unsigned lane)
{
	uint32_t op[32], twice[32];
	for (int i = 0; i < 32; i++) { /* one zero byte */
		uint32_t crc = 1u << i;
		op[i] = crc >> 8 ^ bytes_table[0][crc & 0xff];
	}
	for (unsigned n = 1; n < lane; n *= 2) {
		for (int i = 0; i < 32; i++)
			twice[i] = apply(op, op[i]);
		memcpy(op, twice, sizeof op);
	}
	for (int i = 0; i < 4; i++)
		for (uint32_t b = 0; b < 256; b++)
			table[i][b] = apply(op, b << 8 * i);
}

static uint32_t shift(uint32_t table[4][256], uint32_t crc)
{
	return table[0][crc & 0xff] ^ table[1][crc >> 8 & 0xff] ^ table[2][crc >> 16 & 0xff] ^ table[3][crc >> 24];
}

static uint64_t word(const unsigned char *p)
{
	uint64_t w;
	memcpy(&w, p, 8);
	return w;
}

/* As many times three lanes as fit; moves P and LEN past them. */
__attribute__((target("sse4.2"))) static uint32_t crc_lanes(uint32_t crc, const unsigned char **pp, size_t *len,
							     size_t lane, uint32_t table[4][256])
{
	const unsigned char *p = *pp;
	for (; *len >= 3 * lane; p += 3 * lane, *len -= 3 * lane) {
		uint64_t a = crc, b = 0, c = 0;
		for (size_t i = 0; i < lane; i += 8) {
			a = _mm_crc32_u64(a, word(p + i));
			b = _mm_crc32_u64(b, word(p + lane + i));
			c = _mm_crc32_u64(c, word(p + 2 * lane + i));
		}
		crc = shift(table, shift(table, a) ^ b) ^ c;
	}
	*pp = p;
	return crc;
}

__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(uint32_t crc, const unsigned char *p, size_t len)
{
	crc = crc_lanes(crc, &p, &len, LANE_LONG, over_long);
	crc = crc_lanes(crc, &p, &len, LANE_SHORT, over_short);
	for (; len >= 8; p += 8, len -= 8)
		crc = _mm_crc32_u64(crc, word(p));
	for (; len; p++, len--)
		crc = _mm_crc32_u8(crc, *p);
	return crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *buf, size_t len)
{
	static bool ready, fast;
	if (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE)) { /* two threads at once write the same values */
		make_bytes_table();
#ifdef __x86_64__
		make_shift_table(over_long, LANE_LONG);
		make_shift_table(over_short, LANE_SHORT);
		fast = __builtin_cpu_supports("sse4.2");
#endif
		__atomic_store_n(&ready, true, __ATOMIC_RELEASE);
	}
#ifdef __x86_64__
	if (fast)
		return ~crc_by_instruction(~crc, buf, len);
#endif
	return ~crc_by_table(~crc, buf, len);
}
