#include "arch/x86_64/cpu.h"

#include <cpuid.h>
#include <string.h>

static uint64_t pack(uint32_t low, uint32_t high)
{
	return low | (uint64_t)high << 32;
}

/* In a virtual machine CPUID traps, at some 30 us: no leaf is asked for twice. */
void cpu_features(uint64_t words[4])
{
	unsigned a, b, c, d, max;
	memset(words, 0, 4 * sizeof *words);
	__cpuid(0, max, b, c, d);
	__cpuid(1, a, b, c, d);
	words[0] = pack(c, d);
	if (max >= 7) {
		__cpuid_count(7, 0, a, b, c, d);
		words[1] = pack(b, c);
		words[2] = d;
		if (a >= 1) {
			__cpuid_count(7, 1, a, b, c, d);
			words[2] |= (uint64_t)a << 32;
		}
	}
	if (max >= 13) {
		__cpuid_count(13, 1, a, b, c, d);
		words[3] = a;
	}
	__cpuid(0x80000001, a, b, c, d); /* every x86-64 processor has it */
	words[3] |= (uint64_t)c << 32;
}

/*
 * Instructions that a program chooses by CPUID once and then uses without asking again. Not those of the system
 * (virtualisation, performance monitoring), which no program can use. Intel SDM volume 2A, CPUID; AMD APM volume 3.
 */
static const struct {
	const char *name;
	int word, bit;
} features[] = {
	{"sse3", 0, 0}, {"pclmulqdq", 0, 1}, {"ssse3", 0, 9}, {"fma", 0, 12}, {"cx16", 0, 13}, {"sse4_1", 0, 19},
	{"sse4_2", 0, 20}, {"movbe", 0, 22}, {"popcnt", 0, 23}, {"aes", 0, 25}, {"xsave", 0, 27}, {"avx", 0, 28},
	{"f16c", 0, 29}, {"rdrand", 0, 30},
	{"fsgsbase", 1, 0}, {"bmi1", 1, 3}, {"avx2", 1, 5}, {"bmi2", 1, 8}, {"erms", 1, 9}, {"rtm", 1, 11},
	{"avx512f", 1, 16}, {"avx512dq", 1, 17}, {"rdseed", 1, 18}, {"adx", 1, 19}, {"avx512ifma", 1, 21},
	{"clflushopt", 1, 23}, {"clwb", 1, 24}, {"avx512cd", 1, 28}, {"sha_ni", 1, 29}, {"avx512bw", 1, 30},
	{"avx512vl", 1, 31}, {"avx512vbmi", 1, 33}, {"pku", 1, 35}, {"avx512_vbmi2", 1, 38}, {"gfni", 1, 40},
	{"vaes", 1, 41}, {"vpclmulqdq", 1, 42}, {"avx512_vnni", 1, 43}, {"avx512_bitalg", 1, 44},
	{"avx512_vpopcntdq", 1, 46}, {"rdpid", 1, 54},
	{"fsrm", 2, 4}, {"avx512_vp2intersect", 2, 8}, {"amx_bf16", 2, 22}, {"avx512_fp16", 2, 23}, {"amx_tile", 2, 24},
	{"amx_int8", 2, 25}, {"avx_vnni", 2, 36}, {"avx512_bf16", 2, 37},
	{"xsaveopt", 3, 0}, {"xsavec", 3, 1}, {"xgetbv1", 3, 2}, {"lahf_lm", 3, 32}, {"abm", 3, 37}, {"sse4a", 3, 38},
	{"xop", 3, 43}, {"fma4", 3, 48}, {"tbm", 3, 53},
};

const char *cpu_missing(const uint64_t wanted[4], const uint64_t here[4])
{
	for (size_t i = 0; i < sizeof features / sizeof *features; i++)
		if ((wanted[features[i].word] & ~here[features[i].word]) >> features[i].bit & 1)
			return features[i].name;
	return NULL;
}

#define XSTATE_BV 512 /* the first word of the XSAVE header, behind the 512 bytes of FXSAVE */

uint64_t xstate_in_use(const void *xstate, size_t len)
{
	uint64_t bv = 0;
	if (len >= XSTATE_BV + sizeof bv)
		memcpy(&bv, (const char *)xstate + XSTATE_BV, sizeof bv);
	return bv;
}

uint64_t cpu_xfeatures(void)
{
	unsigned a, b, c, d;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return 3;
	__asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	return pack(a, d);
}

#define XCR0_AT 464 /* ptrace keeps it in the bytes that FXSAVE leaves to software */

/* Offsets that gdb's i387-tdep.c and Intel's SDM volume 1, 13.4.3 agree on. */
static const struct {
	unsigned component, offset, size;
} intel_layout[] = {{2, 576, 256}, {3, 960, 64}, {4, 1024, 64}, {5, 1088, 64}, {6, 1152, 512}, {7, 1664, 1024}, {9, 2688, 8}};
#define INTEL_COMPONENTS 0x2fful

struct place {
	unsigned size, offset;
};

/* Where this processor has a component; asked once. */
static struct place component_here(unsigned component)
{
	static struct place known[16];
	struct place *p = &known[component];
	if (!p->size) {
		unsigned c, d;
		__cpuid_count(13, component, p->size, p->offset, c, d);
		(void)c;
		(void)d;
	}
	return *p;
}

size_t xstate_intel_layout(void *out, const void *xstate, size_t len)
{
	const char *from = xstate;
	char *to = out;
	uint64_t xcr0, bv;
	size_t size = XSTATE_BV + 64;
	memset(to, 0, XSTATE_INTEL_SIZE);
	if (len < size)
		return 0;
	memcpy(to, from, size);
	memcpy(&xcr0, from + XCR0_AT, sizeof xcr0);
	memcpy(&bv, from + XSTATE_BV, sizeof bv);
	xcr0 &= INTEL_COMPONENTS;
	bv &= INTEL_COMPONENTS;
	memcpy(to + XCR0_AT, &xcr0, sizeof xcr0);
	memcpy(to + XSTATE_BV, &bv, sizeof bv);
	for (size_t i = 0; i < sizeof intel_layout / sizeof *intel_layout; i++) {
		if (!(xcr0 >> intel_layout[i].component & 1))
			continue;
		struct place here = component_here(intel_layout[i].component);
		size = intel_layout[i].offset + intel_layout[i].size;
		if (here.size <= intel_layout[i].size && (size_t)here.offset + here.size <= len)
			memcpy(to + intel_layout[i].offset, from + here.offset, here.size);
	}
	return size;
}
