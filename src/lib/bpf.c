#include "lib/bpf.h"

#include <stdbool.h>
#include <string.h>

/* kernel/seccomp.c seccomp_check_filter: what a filter may consist of */
struct machine {
	uint32_t a, x, mem[BPF_MEMWORDS];
};

static uint32_t load(const struct seccomp_data *call, uint32_t at)
{
	uint32_t v = 0;
	if (at <= sizeof *call - sizeof v)
		memcpy(&v, (const char *)call + at, sizeof v);
	return v;
}

static uint32_t alu(uint16_t op, uint32_t a, uint32_t b)
{
	switch (op) {
	case BPF_ADD:
		return a + b;
	case BPF_SUB:
		return a - b;
	case BPF_MUL:
		return a * b;
	case BPF_DIV:
		return b ? a / b : 0;
	case BPF_OR:
		return a | b;
	case BPF_AND:
		return a & b;
	case BPF_XOR:
		return a ^ b;
	case BPF_LSH:
		return b < 32 ? a << b : 0;
	case BPF_RSH:
		return b < 32 ? a >> b : 0;
	default:
		return -a; /* BPF_NEG */
	}
}

static bool jumps(uint16_t op, uint32_t a, uint32_t b)
{
	switch (op) {
	case BPF_JEQ:
		return a == b;
	case BPF_JGT:
		return a > b;
	case BPF_JGE:
		return a >= b;
	default:
		return a & b; /* BPF_JSET */
	}
}

static uint32_t loaded(const struct machine *m, const struct sock_filter *i, const struct seccomp_data *call)
{
	switch (BPF_MODE(i->code)) {
	case BPF_ABS:
		return load(call, i->k);
	case BPF_MEM:
		return m->mem[i->k % BPF_MEMWORDS];
	case BPF_LEN:
		return sizeof *call;
	default:
		return i->k; /* BPF_IMM */
	}
}

uint32_t bpf_run(const struct sock_filter *prog, size_t len, const struct seccomp_data *call)
{
	struct machine m = {0};
	for (size_t pc = 0; pc < len; pc++) {
		const struct sock_filter *i = &prog[pc];
		uint32_t operand = BPF_SRC(i->code) == BPF_X ? m.x : i->k;
		switch (BPF_CLASS(i->code)) {
		case BPF_LD:
			m.a = loaded(&m, i, call);
			break;
		case BPF_LDX:
			m.x = loaded(&m, i, call);
			break;
		case BPF_ST:
			m.mem[i->k % BPF_MEMWORDS] = m.a;
			break;
		case BPF_STX:
			m.mem[i->k % BPF_MEMWORDS] = m.x;
			break;
		case BPF_ALU:
			m.a = alu(BPF_OP(i->code), m.a, operand);
			break;
		case BPF_JMP: /* only forwards: it ends */
			if (BPF_OP(i->code) == BPF_JA)
				pc += i->k;
			else
				pc += jumps(BPF_OP(i->code), m.a, operand) ? i->jt : i->jf;
			break;
		case BPF_RET:
			return BPF_RVAL(i->code) == BPF_A ? m.a : i->k;
		default: /* BPF_MISC */
			if (BPF_MISCOP(i->code) == BPF_TAX)
				m.x = m.a;
			else
				m.a = m.x;
		}
	}
	return SECCOMP_RET_KILL_PROCESS;
}

int bpf_may_return(const struct sock_filter *prog, size_t len, uint32_t action)
{
	for (size_t i = 0; i < len; i++)
		if (BPF_CLASS(prog[i].code) == BPF_RET &&
		    (BPF_RVAL(prog[i].code) == BPF_A || (prog[i].k & SECCOMP_RET_ACTION_FULL) == action))
			return 1;
	return 0;
}
