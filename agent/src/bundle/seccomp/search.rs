//! Calls that are allowed whatever their arguments, as a binary search over ranges of numbers: a chain of comparisons is five times as
//! long, and the kernel translates and keeps the program once per container.

use seccompiler::sock_filter;

const JUMP: u16 = 0x05;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Instructions that allow these numbers and go on behind themselves with all others. The number must be loaded.
pub(super) fn allow(numbers: impl IntoIterator<Item = u32>) -> Vec<sock_filter> {
    let ranges = ranges(numbers);
    let mut program = Vec::new();
    if let Some((first, _)) = ranges.first() {
        program.push(instruction(JUMP_GREATER_OR_EQUAL, *first, 1, 0));
        program.push(OUT);
        search(&ranges, &mut program);
    }
    // Every way out is a jump to the end, whose place is known only now.
    let end = program.len();
    for (place, instruction) in program.iter_mut().enumerate() {
        if instruction.code == JUMP && instruction.k == OUT.k {
            instruction.k = (end - place - 1) as u32;
        }
    }
    program
}

const OUT: sock_filter = instruction(JUMP, u32::MAX, 0, 0);

const fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// First and last numbers, in order.
fn ranges(numbers: impl IntoIterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut numbers: Vec<u32> = numbers.into_iter().collect();
    numbers.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if number <= *last + 1 => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

/// The number is at least the first of the ranges.
fn search(ranges: &[(u32, u32)], program: &mut Vec<sock_filter>) {
    if let [(_, last)] = ranges {
        program.push(instruction(JUMP_GREATER, *last, 1, 0));
        program.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
        program.push(OUT);
        return;
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    // The other half may be further away than the 255 that a comparison can jump.
    program.push(instruction(JUMP_GREATER_OR_EQUAL, upper[0].0, 0, 1));
    let place = program.len();
    program.push(instruction(JUMP, 0, 0, 0));
    search(lower, program);
    program[place].k = (program.len() - place - 1) as u32;
    search(upper, program);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_must_become_one_range() {
        assert_eq!(ranges([7, 1, 2, 3, 9]), [(1, 3), (7, 7), (9, 9)]);
        assert!(allow([]).is_empty());
    }
}
