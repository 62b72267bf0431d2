/*
 * Credentials of the calling thread, by raw calls: libc's would change all threads.
 *
 * capabilities(7): the inheritable set may be left over from a wider bounding set, so it comes first; ids are changed
 * with SECBIT_NO_SETUID_FIXUP, so that the capabilities stay until they are given up; securebits need CAP_SETPCAP and may
 * forbid raising ambient ones, which need permitted and inheritable ones.
 */
#include "restorer-parts.h"

enum {
	INH, PRM, EFF, BND, AMB,
	PR_CAPBSET_DROP_ = 24,
	PR_SET_SECUREBITS_ = 28,
	PR_SET_NO_NEW_PRIVS_ = 38,
	PR_CAP_AMBIENT_ = 47,
	PR_CAP_AMBIENT_RAISE_ = 2,
	PR_CAP_AMBIENT_CLEAR_ALL_ = 4,
	SECBIT_NO_SETUID_FIXUP_ = 1 << 2,
	CAP_VERSION_3 = 0x20080522,
};

static long set_caps(uint64_t inh, uint64_t prm, uint64_t eff)
{
	uint32_t head[2] = {CAP_VERSION_3, 0};
	uint32_t data[6] = {(uint32_t)eff, (uint32_t)prm, (uint32_t)inh, eff >> 32, prm >> 32, inh >> 32};
	return SYS2(__NR_capset, head, data);
}

static long own_permitted(uint64_t *prm)
{
	uint32_t head[2] = {CAP_VERSION_3, 0}, data[6];
	long ret = SYS2(__NR_capget, head, data);
	*prm = data[1] | (uint64_t)data[4] << 32;
	return ret;
}

static void restore_ids(const struct restorer_args *a, const struct restorer_creds *c, int32_t tid)
{
	if (c->todo & CREDS_GROUPS)
		check(a, SYS2(__NR_setgroups, c->n_groups, c->groups), STEP_CREDS, tid);
	if (!(c->todo & CREDS_IDS))
		return;
	check(a, SYS3(__NR_setresgid, c->gid[0], c->gid[1], c->gid[2]), STEP_CREDS, tid);
	SYS1(__NR_setfsgid, c->gid[3]);
	check(a, SYS3(__NR_setresuid, c->uid[0], c->uid[1], c->uid[2]), STEP_CREDS, tid);
	SYS1(__NR_setfsuid, c->uid[3]);
	/* these two tell no error but by what they say was there before */
	if (SYS1(__NR_setfsuid, -1) != c->uid[3] || SYS1(__NR_setfsgid, -1) != c->gid[3])
		check(a, -EPERM, STEP_CREDS, tid);
}

static void restore_caps(const struct restorer_args *a, const struct restorer_creds *c, uint64_t prm, int32_t tid)
{
	/* with what is still there, for the next two */
	check(a, set_caps(c->cap[INH], prm, prm), STEP_CREDS, tid);
	check(a, SYS5(__NR_prctl, PR_CAP_AMBIENT_, PR_CAP_AMBIENT_CLEAR_ALL_, 0, 0, 0), STEP_CREDS, tid);
	for (long i = 0; i < 64; i++)
		if (c->cap[AMB] >> i & 1)
			check(a, SYS5(__NR_prctl, PR_CAP_AMBIENT_, PR_CAP_AMBIENT_RAISE_, i, 0, 0), STEP_CREDS, tid);
}

void restore_creds(const struct restorer_args *a, const struct restorer_thread *t)
{
	const struct restorer_creds *c = (void *)t->creds;
	uint64_t prm;
	if (!c)
		return;
	check(a, own_permitted(&prm), STEP_CREDS, t->tid);
	if (c->todo & CREDS_CAPS) {
		check(a, set_caps(c->cap[INH], prm, prm), STEP_CREDS, t->tid);
		for (long i = 0; i < 64; i++)
			if (c->drop >> i & 1)
				check(a, SYS2(__NR_prctl, PR_CAPBSET_DROP_, i), STEP_CREDS, t->tid);
	}
	if (c->todo & CREDS_IDS)
		check(a, SYS2(__NR_prctl, PR_SET_SECUREBITS_, SECBIT_NO_SETUID_FIXUP_), STEP_CREDS, t->tid);
	restore_ids(a, c, t->tid);
	if (c->todo & CREDS_CAPS)
		restore_caps(a, c, prm, t->tid);
	if (c->todo & (CREDS_BITS | CREDS_IDS))
		check(a, SYS2(__NR_prctl, PR_SET_SECUREBITS_, c->securebits), STEP_CREDS, t->tid);
	if (c->todo & CREDS_CAPS)
		check(a, set_caps(c->cap[INH], c->cap[PRM], c->cap[EFF]), STEP_CREDS, t->tid);
	if (c->todo & CREDS_NO_NEW_PRIVS)
		check(a, SYS5(__NR_prctl, PR_SET_NO_NEW_PRIVS_, 1, 0, 0, 0), STEP_CREDS, t->tid);
}
