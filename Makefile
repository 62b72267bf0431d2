# criu-lite's build: one static binary, and two blobs inside it.
#
# A blob (parasite, restorer) is a program of its own that runs where no libc of ours is. It passes through these
# steps, each one a line of output, and enters the binary in asm/blobs.S only:
#
#   pie/NAME*.o              CC, AS  freestanding, position-independent
#   pie/NAME.built-in.o      LINK    ld -r: one object, its relocations still to be seen and judged
#   pie/NAME.built-in.bin.o  GEN     ld -T ld/blob.lds: code at 0, then data, bss and stack on pages of their own
#   pie/NAME.built-in.bin    GEN     objcopy -O binary
#   include/NAME-offsets.h   GEN     nm: where the exported symbols lie in the bytes
#
# Everything made lies under $(B). V=1 shows the commands.

B	:= build
BLOBS	:= parasite restorer

CC	:= gcc
LD	:= ld
NM	:= nm
OBJCOPY	:= objcopy
INSTALL	:= install
PREFIX	:= /usr/local
DESTDIR	:=

CFLAGS	:= -O2 -g
WERROR	:= -Werror
WARN	:= -Wall -Wextra $(WERROR)

# A path of the machine that builds must not get into the bytes: debug information and __FILE__ hold relative ones.
REPRO	:= -ffile-prefix-map=$(CURDIR)=.
INC	:= -Iinclude -I$(B) -I$(B)/include -Isrc
DEPS	= -MMD -MP -MF $(@:.o=.d)

ALL_CFLAGS  = -std=gnu11 $(CFLAGS) $(WARN) -D_GNU_SOURCE $(INC) $(REPRO)
ALL_LDFLAGS = -static -pthread -Wl,--build-id=none -Wl,-z,noexecstack $(LDFLAGS)

# In a blob: nothing that needs a libc or its set-up (stack protector, TLS, implicit calls), nothing that touches the
# extended state of the program it runs in, and no tables of addresses, which would need someone to relocate them.
# hidden.h makes extern declarations hidden as well, which -fvisibility alone does not: no GOT for them.
BLOB_CFLAGS = -std=gnu11 -O2 -g $(WARN) -D_GNU_SOURCE $(INC) -Ipie $(REPRO) -include ld/hidden.h \
	      -ffreestanding -fpie -fvisibility=hidden -fno-builtin -fno-common \
	      -fno-stack-protector -fno-stack-clash-protection -fcf-protection=none \
	      -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-exceptions \
	      -fno-jump-tables -fno-tree-loop-distribute-patterns \
	      -mgeneral-regs-only -mno-mmx -mno-sse -mno-avx
BLOB_ASFLAGS = -D__ASSEMBLY__ $(INC) -Ipie $(REPRO) -g

ifeq ($(V),1)
Q	:=
say	= @:
else
Q	:= @
say	= @printf '  %-8s %s\n' $(1) $(patsubst $(B)/%,%,$@)
endif

# ---- what there is -------------------------------------------------------------------------------------------------

SRC_C	:= $(sort $(wildcard src/*.c src/kinds/*.c src/lib/*.c src/arch/x86_64/*.c))
SRC_S	:= $(sort $(wildcard src/arch/x86_64/*.S))
OBJ	:= $(SRC_C:%.c=$(B)/%.o) $(SRC_S:%.S=$(B)/%.o)
BLOBS_O	:= $(B)/asm/blobs.o

# The heads come first: a blob whose entry is named by no symbol is entered at its first byte.
blob_src = $(sort $(wildcard pie/$(1)*.S)) $(sort $(wildcard pie/$(1)*.c)) pie/lib.c
blob_obj = $(addprefix $(B)/,$(addsuffix .o,$(basename $(call blob_src,$(1)))))
PIE_OBJ	:= $(sort $(foreach b,$(BLOBS),$(call blob_obj,$(b))))

BINS	:= $(BLOBS:%=$(B)/pie/%.built-in.bin)
OFFSETS	:= $(BLOBS:%=$(B)/include/%-offsets.h)

PROGS	:= $(sort $(patsubst %.c,$(B)/%,$(wildcard t/prog/*.c)) $(patsubst %.S,$(B)/%,$(wildcard t/prog/*.S)))

# Every folder that something is made in, and files that say with what it was made: a changed flag remakes objects,
# a source that came or went relinks. Written only when their content changes.
DIRS	:= $(sort $(dir $(OBJ) $(PIE_OBJ) $(BLOBS_O) $(OFFSETS)) $(B)/t/prog/)
FLAGS	:= $(B)/flags
LIST	:= $(B)/sources

note	= $(shell mkdir -p $(B); printf '%s\n' '$(2)' >$(1).new; cmp -s $(1).new $(1) || cp $(1).new $(1); rm -f $(1).new)

ifeq ($(filter clean format lint,$(or $(MAKECMDGOALS),all)),)
$(shell mkdir -p $(DIRS))
$(call note,$(FLAGS),$(filter-out $(REPRO),$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(BLOB_CFLAGS)))
$(call note,$(LIST),$(OBJ))
$(foreach b,$(BLOBS),$(call note,$(B)/pie/$(b).sources,$(call blob_obj,$(b))))
# Where a header was removed by hand, its stamp must not claim that it is there.
$(foreach h,$(OFFSETS),$(if $(wildcard $(h)),,$(shell rm -f $(h).stamp)))
endif

# ---- targets -------------------------------------------------------------------------------------------------------

.PHONY: all progs demo test test-full bench install format lint clean
.DELETE_ON_ERROR:
.SUFFIXES:

all: $(B)/criu-lite

progs: $(PROGS)

demo: all progs
	$(Q)t/demo

test: all progs
	$(Q)t/run

test-full: all progs
	$(Q)CRL_FULL=1 t/run

bench: all progs
	$(Q)t/bench/run

install: all
	$(Q)$(INSTALL) -D -m 0755 $(B)/criu-lite $(DESTDIR)$(PREFIX)/sbin/criu-lite
	$(Q)if [ -f src/criu-lite.8 ]; then \
		$(INSTALL) -D -m 0644 src/criu-lite.8 $(DESTDIR)$(PREFIX)/share/man/man8/criu-lite.8; fi

C_FILES	= $(sort $(shell find src pie include ld t -name '*.[ch]'))
SH_FILES = $(sort $(shell grep -lE '^#!.*(sh|bats)' -r ld t .ci))

format:
	clang-format -i $(C_FILES)

# Each of these looks only where it is installed: none is needed to build. All have their say before lint fails.
# comparePointers: start and end of a blob are two symbols, which is the point.
TIDY	:= -*,bugprone-*,clang-analyzer-*,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier
TIDY	:= $(TIDY),-bugprone-narrowing-conversions,-bugprone-suspicious-string-compare
TIDY	:= $(TIDY),-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling

lint:
	$(Q)status=0; have() { command -v $$1 >/dev/null; }; \
	if have shellcheck; then shellcheck -S warning $(SH_FILES) || status=1; fi; \
	if have cppcheck; then cppcheck -q --std=c11 --enable=warning,portability --suppress=comparePointers \
		--inline-suppr --error-exitcode=1 -D_GNU_SOURCE -D__x86_64__ -Iinclude -Isrc src pie || status=1; fi; \
	if have clang-tidy; then clang-tidy --quiet --checks='$(TIDY)' $(SRC_C) -- \
		-std=gnu11 -D_GNU_SOURCE $(INC) || status=1; fi; \
	exit $$status

clean:
	$(Q)rm -rf $(B)

# ---- the binary ----------------------------------------------------------------------------------------------------

$(B)/criu-lite: $(OBJ) $(BLOBS_O) $(LIST)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) $(ALL_LDFLAGS) -o $@ $(OBJ) $(BLOBS_O)

# The headers must be there before the first compilation; from then on only who includes one depends on it.
$(OBJ): $(FLAGS) | $(OFFSETS)

$(B)/src/%.o: src/%.c
	$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) $(DEPS) -c -o $@ $<

$(B)/src/%.o: src/%.S
	$(call say,AS)
	$(Q)$(CC) -D__ASSEMBLY__ $(CFLAGS) $(INC) $(REPRO) $(DEPS) -c -o $@ $<

$(BLOBS_O): asm/blobs.S $(BINS) $(FLAGS)
	$(call say,AS)
	$(Q)$(CC) $(REPRO) -Wa,-I$(B) -c -o $@ $<

# ---- the blobs -----------------------------------------------------------------------------------------------------

$(PIE_OBJ): $(FLAGS)

$(B)/pie/%.o: pie/%.c
	$(call say,CC)
	$(Q)$(CC) $(BLOB_CFLAGS) $(DEPS) -c -o $@ $<

$(B)/pie/%.o: pie/%.S
	$(call say,AS)
	$(Q)$(CC) $(BLOB_ASFLAGS) $(DEPS) -c -o $@ $<

# $(1): the blob. Checked in two places: relocations can be seen only before the last link, the layout only after.
define blob
$(B)/pie/$(1).built-in.o: $(call blob_obj,$(1)) $(B)/pie/$(1).sources ld/check-blob ld/blob.lds
	$$(call say,LINK)
	$$(Q)$(LD) -r -o $$@ $(call blob_obj,$(1))
	$$(Q)ld/check-blob object $$@ ld/blob.lds

$(B)/pie/$(1).built-in.bin.o: $(B)/pie/$(1).built-in.o ld/blob.lds
	$$(call say,GEN)
	$$(Q)$(LD) -T ld/blob.lds --orphan-handling=error --no-relax --build-id=none -z noexecstack -e 0 -o $$@ $$<
	$$(Q)ld/check-blob layout $$@ $$<

$(B)/pie/$(1).built-in.bin: $(B)/pie/$(1).built-in.bin.o
	$$(call say,GEN)
	$$(Q)$(OBJCOPY) -O binary $$< $$@

# The header is moved into place only when it differs: most edits of a blob move no exported symbol. The empty recipe
# makes make look at the header's own time, not at the stamp's; the + has it do so under -n and -q as well.
$(B)/include/$(1)-offsets.h.stamp: $(B)/pie/$(1).built-in.bin.o ld/offsets
	$(if $(Q),@printf '  %-8s %s\n' GEN $(1)-offsets.h)
	$$(Q)NM=$(NM) ld/offsets $(1) $$< >$$(@:.stamp=.new)
	$$(Q)if cmp -s $$(@:.stamp=.new) $$(@:.stamp=); then rm -f $$(@:.stamp=.new); \
		else mv $$(@:.stamp=.new) $$(@:.stamp=); fi
	$$(Q)touch $$@

$(B)/include/$(1)-offsets.h: $(B)/include/$(1)-offsets.h.stamp ; +
endef
$(foreach b,$(BLOBS),$(eval $(call blob,$(b))))

# ---- programs that the tests dump ----------------------------------------------------------------------------------

$(PROGS): $(FLAGS)

$(B)/t/prog/%: t/prog/%.c
	$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -pthread -o $@ $< -lm -lrt

$(B)/t/prog/%: t/prog/%.S
	$(call say,AS)
	$(Q)$(CC) -D__ASSEMBLY__ $(CFLAGS) $(INC) $(REPRO) -MMD -MP -MF $@.d -pthread -o $@ $< -lm -lrt

-include $(OBJ:.o=.d) $(PIE_OBJ:.o=.d) $(PROGS:%=%.d)
