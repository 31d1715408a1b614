//! An assembler for classic BPF that runs at compile time.
//!
//! A jump names the label of its target. A program is assembled in a constant, so a jump to a label that no later
//! instruction has does not compile.
//!
//! Source: `linux/filter.h`, `linux/bpf_common.h`.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "it runs in the compiler, where a panic is an error at the right place"
)]

use socket2::SockFilter;

/// The next instruction.
pub(super) const NEXT: &str = "";
/// The end of the program, where another program may follow.
pub(super) const END: &str = "end";

/// An instruction with the labels of its jump targets and, if it is a target itself, its own label.
#[derive(Clone, Copy)]
pub(super) struct Step {
    label: &'static str,
    code: u32,
    operand: u32,
    /// The targets if the condition holds, and if it does not.
    jump: Option<(&'static str, &'static str)>,
}

/// An instruction as the kernel expects it: code, distance if true, distance if false, operand.
pub(super) type Instruction = (u16, u8, u8, u32);

const fn step(code: u32, operand: u32) -> Step {
    Step { label: NEXT, code, operand, jump: None }
}

const fn jump(code: u32, operand: u32, yes: &'static str, no: &'static str) -> Step {
    Step { label: NEXT, code: libc::BPF_JMP | code, operand, jump: Some((yes, no)) }
}

/// Gives an instruction a label.
pub(super) const fn at(label: &'static str, step: Step) -> Step {
    Step { label, ..step }
}

/// Loads 32 bits in network byte order.
pub(super) const fn load_word(offset: u32) -> Step {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

/// Loads 16 bits in network byte order.
pub(super) const fn load_half(offset: u32) -> Step {
    step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, offset)
}

/// Loads a byte.
pub(super) const fn load_byte(offset: u32) -> Step {
    step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, offset)
}

/// Like [`load_word`], with the index register added to the offset.
pub(super) const fn load_word_behind_index(offset: u32) -> Step {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, offset)
}

/// Like [`load_half`], with the index register added to the offset.
pub(super) const fn load_half_behind_index(offset: u32) -> Step {
    step(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, offset)
}

/// Puts the length of the IPv4 header at offset 0 into the index register.
pub(super) const fn index_is_ipv4_header_length() -> Step {
    step(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0)
}

/// Copies the accumulator into the index register.
pub(super) const fn index_is_loaded() -> Step {
    step(libc::BPF_MISC | libc::BPF_TAX, 0)
}

/// Masks the accumulator.
pub(super) const fn and(bits: u32) -> Step {
    step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits)
}

/// Compares the accumulator with a number.
pub(super) const fn if_equal(number: u32, yes: &'static str, no: &'static str) -> Step {
    jump(libc::BPF_JEQ | libc::BPF_K, number, yes, no)
}

/// Compares the accumulator with the index register.
pub(super) const fn if_equal_to_index(yes: &'static str, no: &'static str) -> Step {
    jump(libc::BPF_JEQ | libc::BPF_X, 0, yes, no)
}

/// Tests whether any of these bits is set in the accumulator.
pub(super) const fn if_any_bit(bits: u32, yes: &'static str, no: &'static str) -> Step {
    jump(libc::BPF_JSET | libc::BPF_K, bits, yes, no)
}

/// Ends, and delivers this many bytes of the packet. Zero drops the packet.
pub(super) const fn take(bytes: u32) -> Step {
    step(libc::BPF_RET | libc::BPF_K, bytes)
}

/// Resolves labels to distances. To be called in a constant.
pub(super) const fn assemble<const N: usize>(steps: [Step; N]) -> [Instruction; N] {
    let mut program = [(0, 0, 0, 0); N];
    let mut place = 0;
    while place < N {
        let Step { code, operand, jump, .. } = steps[place];
        let (yes, no) = match jump {
            Some((yes, no)) => (distance(&steps, place, yes), distance(&steps, place, no)),
            None => (0, 0),
        };
        program[place] = (code as u16, yes, no, operand);
        place += 1;
    }
    program
}

/// The number of instructions that a jump skips. Jumps only go forward.
const fn distance(steps: &[Step], from: usize, label: &str) -> u8 {
    if is_same(label, NEXT) {
        return 0;
    }
    let mut place = from + 1;
    while place < steps.len() && !is_same(steps[place].label, label) {
        place += 1;
    }
    assert!(place < steps.len() || is_same(label, END), "a jump to a label that no later instruction has");
    let distance = place - from - 1;
    assert!(distance <= u8::MAX as usize, "the jump is too long");
    distance as u8
}

/// `==` for strings, which is not available in a constant.
const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut place = 0;
    while place < one.len() {
        if one[place] != other[place] {
            return false;
        }
        place += 1;
    }
    true
}

/// Converts a program for `attach_filter`.
pub(super) fn for_kernel(program: &[Instruction]) -> Vec<SockFilter> {
    program.iter().map(|(code, yes, no, operand)| SockFilter::new(*code, *yes, *no, *operand)).collect()
}
