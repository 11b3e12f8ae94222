//! Problem lines: what is taken reads back the same and is planned, or refused by a typed error; what is not taken has
//! an error that points into the line. Nothing panics and nothing overflows.
#![no_main]

use gpuconv::{Caps, Choice, Error, Operation, Problem, cost, planner};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &str| {
    let problem: Problem = match line.parse() {
        Ok(problem) => problem,
        Err(Error::Parse(error)) => {
            assert!(line.get(error.start..error.end).is_some());
            let _ = error.to_string();
            return;
        }
        Err(other) => panic!("no parse error: {other}"),
    };
    assert_eq!(problem.to_string().parse(), Ok(problem.clone()));
    let _ = cost::chain(&problem.chain(), problem.input);
    // A network takes a second to plan.
    if matches!(problem.operation, Operation::Network(_)) {
        return;
    }
    for caps in [Caps::webgpu(), Caps { is_cpu: true, subgroup: Some([8, 8]), int64: true, ..Caps::webgpu() }] {
        let _ = planner::schedule(&problem.chain(), problem.input, problem.layout, &caps, &Choice::Auto);
    }
});
