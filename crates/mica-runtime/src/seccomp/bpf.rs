//! From rules per system call to a seccomp program (classic BPF over `struct seccomp_data`).
//!
//! ```text
//! load arch ── native ──► load nr ── binary search over ranges of numbers ──► leaf
//!           ├─ compat ──► the same with the 32-bit table
//!           └─ other  ──► kill the process
//! ```
//! A leaf returns, or looks at arguments first. Ranges keep the program short and a search of them
//! makes about nine comparisons for any call.

use mica_sys::process::FilterInstruction;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Allow,
    /// It fails with this error number.
    Errno(u16),
    /// The process is killed.
    KillProcess,
    /// The thread is killed.
    KillThread,
    /// It raises `SIGSYS`.
    Trap,
    /// It is made, and logged.
    Log,
}

impl Action {
    fn value(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Errno(number) => 0x0005_0000 | u32::from(number),
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Log => 0x7ffc_0000,
        }
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `argument & mask == value`.
    MaskedEqual {
        /// Bits looked at.
        mask: u64,
    },
    /// `argument != value`.
    NotEqual,
    /// `argument > value`.
    Greater,
    /// `argument >= value`.
    AtLeast,
    /// `argument < value`.
    Less,
    /// `argument <= value`.
    AtMost,
}

/// A condition on one argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
    /// The kernel takes only the lower 32 bits of the argument (an `int`): so do we, or garbage above
    /// them would get past the comparison.
    pub int: bool,
}

/// What happens to one system call: the first rule all of whose conditions hold decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Conditional rules in order.
    pub rules: Vec<(Vec<Condition>, Action)>,
    /// If none applies.
    pub otherwise: Action,
}

impl From<Action> for Verdict {
    fn from(action: Action) -> Self {
        Self { rules: Vec::new(), otherwise: action }
    }
}

/// The rules for one architecture.
#[derive(Debug, Clone)]
pub struct Section {
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Verdict by system call number.
    pub verdicts: Vec<Verdict>,
    /// Verdicts for single numbers beyond the list, in rising order.
    pub far: Vec<(u32, Verdict)>,
    /// For numbers beyond the list.
    pub beyond: Action,
}

/// Compiles sections to one program.
pub fn compile(sections: &[Section]) -> Vec<FilterInstruction> {
    let mut program = vec![statement(LOAD, ARCH)];
    for section in sections {
        let body = section_body(section);
        program.push(branch(IF_EQUAL, section.arch, 1, 0));
        program.push(statement(JUMP, body.len() as u32));
        program.extend(body);
    }
    program.push(statement(RETURN, Action::KillProcess.value()));
    program
}

fn statement(code: u16, value: u32) -> FilterInstruction {
    FilterInstruction { code, jump_true: 0, jump_false: 0, value }
}

fn branch(code: u16, value: u32, jump_true: u8, jump_false: u8) -> FilterInstruction {
    FilterInstruction { code, jump_true, jump_false, value }
}

fn section_body(section: &Section) -> Vec<FilterInstruction> {
    let beyond = Verdict::from(section.beyond);
    // (first number, verdict), neighbours with the same verdict joined.
    let mut ranges: Vec<(u32, &Verdict)> = Vec::new();
    for (number, verdict) in section.verdicts.iter().chain([&beyond]).enumerate() {
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((number as u32, verdict));
        }
    }
    for (number, verdict) in &section.far {
        ranges.extend([(*number, verdict), (*number + 1, &beyond)]);
    }
    let mut body = vec![statement(LOAD, NR)];
    body.extend(search(&ranges));
    body
}

/// Emits a binary search; the halving bounds the recursion to the logarithm of the number of calls.
fn search(ranges: &[(u32, &Verdict)]) -> Vec<FilterInstruction> {
    if let [(_, verdict)] = ranges {
        return leaf(verdict);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let middle = high[0].0;
    let (low, high) = (search(low), search(high));
    let mut code = Vec::with_capacity(low.len() + high.len() + 2);
    match u8::try_from(low.len()) {
        Ok(distance) => code.push(branch(IF_AT_LEAST, middle, distance, 0)),
        Err(_) => {
            code.push(branch(IF_AT_LEAST, middle, 0, 1));
            code.push(statement(JUMP, low.len() as u32));
        }
    }
    code.extend(low);
    code.extend(high);
    code
}

fn leaf(verdict: &Verdict) -> Vec<FilterInstruction> {
    let mut code = Vec::new();
    for (conditions, action) in &verdict.rules {
        // Built backwards: each condition jumps over all that follows it in this rule if it fails.
        let mut rule = vec![statement(RETURN, action.value())];
        for condition in conditions.iter().rev() {
            let mut check = test(*condition, rule.len() as u32);
            check.append(&mut rule);
            rule = check;
        }
        code.extend(rule);
    }
    code.push(statement(RETURN, verdict.otherwise.value()));
    code
}

/// Emits one comparison that goes on with the next instruction if it holds and skips `skip` if not.
fn test(condition: Condition, skip: u32) -> Vec<FilterInstruction> {
    // Little-endian machines only: the lower half of an argument comes first.
    let low = ARGS + 8 * u32::from(condition.argument);
    let (value_low, value_high) = (condition.value as u32, (condition.value >> 32) as u32);
    // Ends with "true: over the jump" / "false: take the jump"; short jumps only inside.
    let mut code = Vec::new();
    match condition.comparison {
        Comparison::MaskedEqual { mask } => {
            if condition.int {
                code.extend([
                    statement(LOAD, low),
                    statement(AND, mask as u32),
                    branch(IF_EQUAL, value_low, 1, 0),
                ]);
            } else {
                code.extend([
                    statement(LOAD, low + 4),
                    statement(AND, (mask >> 32) as u32),
                    branch(IF_EQUAL, value_high, 0, 3),
                    statement(LOAD, low),
                    statement(AND, mask as u32),
                    branch(IF_EQUAL, value_low, 1, 0),
                ]);
            }
        }
        Comparison::NotEqual if condition.int => {
            code.extend([statement(LOAD, low), branch(IF_EQUAL, value_low, 0, 1)]);
        }
        Comparison::NotEqual => code.extend([
            statement(LOAD, low + 4),
            branch(IF_EQUAL, value_high, 0, 3),
            statement(LOAD, low),
            branch(IF_EQUAL, value_low, 0, 1),
        ]),
        comparison => code.extend(ordered(comparison, low, value_low, value_high)),
    }
    code.push(statement(JUMP, skip));
    code
}

/// Emits a 64-bit ordering: the upper halves decide unless they are equal.
fn ordered(comparison: Comparison, low: u32, value_low: u32, value_high: u32) -> [FilterInstruction; 5] {
    // Greater and AtLeast hold when the comparison is true, Less and AtMost when its opposite is false.
    let (code, negated) = match comparison {
        Comparison::AtLeast => (IF_AT_LEAST, false),
        Comparison::Less => (IF_AT_LEAST, true),
        Comparison::AtMost => (IF_GREATER, true),
        _ => (IF_GREATER, false),
    };
    // After the last instruction: 0 is the jump that skips the rule, 1 is the way on.
    let (when_true, when_false) = if negated { (0, 1) } else { (1, 0) };
    [
        statement(LOAD, low + 4),
        branch(IF_GREATER, value_high, 3 + when_true, 0),
        branch(IF_EQUAL, value_high, 0, 2 + when_false),
        statement(LOAD, low),
        branch(code, value_low, when_true, when_false),
    ]
}

/// Runs a program on one call, as the kernel would: for tests and for `explain`.
#[cfg(test)]
pub(crate) fn simulate(program: &[FilterInstruction], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let mut accumulator = 0_u32;
    let mut at = 0;
    loop {
        let step = program[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { step.jump_true } else { step.jump_false });
        match step.code {
            LOAD => {
                accumulator = match step.value {
                    NR => nr,
                    ARCH => arch,
                    offset => {
                        let argument = args[((offset - ARGS) / 8) as usize];
                        if offset % 8 == 0 { argument as u32 } else { (argument >> 32) as u32 }
                    }
                }
            }
            AND => accumulator &= step.value,
            JUMP => at += step.value as usize,
            IF_EQUAL => at += jump(accumulator == step.value),
            IF_AT_LEAST => at += jump(accumulator >= step.value),
            IF_GREATER => at += jump(accumulator > step.value),
            RETURN => return step.value,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(condition: Condition, argument: u64) -> bool {
        let verdict = Verdict { rules: vec![(vec![condition], Action::Allow)], otherwise: Action::Errno(1) };
        let section = Section { arch: 7, verdicts: vec![verdict], far: vec![], beyond: Action::Errno(38) };
        let program = compile(&[section]);
        simulate(&program, 7, 0, [0, argument, 0, 0, 0, 0]) == Action::Allow.value()
    }

    #[test]
    fn comparisons_agree_with_arithmetic() {
        let values = [0, 1, 2, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, 0x2_0000_0000, u64::MAX];
        for value in values {
            for argument in values {
                let check = |comparison, expected: bool| {
                    let condition = Condition { argument: 1, comparison, value, int: false };
                    assert_eq!(
                        outcome(condition, argument),
                        expected,
                        "{argument:#x} {comparison:?} {value:#x}"
                    );
                };
                check(Comparison::NotEqual, argument != value);
                check(Comparison::Greater, argument > value);
                check(Comparison::AtLeast, argument >= value);
                check(Comparison::Less, argument < value);
                check(Comparison::AtMost, argument <= value);
                check(Comparison::MaskedEqual { mask: u64::MAX }, argument == value);
                check(Comparison::MaskedEqual { mask: 3 }, argument & 3 == value);
            }
        }
    }

    #[test]
    fn an_int_argument_is_compared_without_its_upper_half() {
        let condition = Condition { argument: 1, comparison: Comparison::NotEqual, value: 38, int: true };
        assert!(!outcome(condition, 0x1_0000_0026));
        assert!(outcome(condition, 0x1_0000_0027));
    }

    #[test]
    fn every_number_finds_its_verdict() {
        let verdicts: Vec<Verdict> = (0..600).map(|number| Action::Errno(number % 7).into()).collect();
        let far = vec![(1000, Action::Allow.into()), (5000, Action::Trap.into())];
        let section = Section { arch: 7, verdicts, far, beyond: Action::Errno(38) };
        let program = compile(&[Section { arch: 3, ..section.clone() }, section]);
        for number in 0..600 {
            let expected = Action::Errno((number % 7) as u16).value();
            assert_eq!(simulate(&program, 7, number, [0; 6]), expected);
        }
        assert_eq!(simulate(&program, 7, 0x4000_0000, [0; 6]), Action::Errno(38).value());
        assert_eq!(simulate(&program, 7, 1000, [0; 6]), Action::Allow.value());
        assert_eq!(simulate(&program, 7, 1001, [0; 6]), Action::Errno(38).value());
        assert_eq!(simulate(&program, 7, 5000, [0; 6]), Action::Trap.value());
        assert_eq!(simulate(&program, 9, 0, [0; 6]), Action::KillProcess.value());
    }
}
