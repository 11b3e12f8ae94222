//! Problem lines. A valid line reads back the same after formatting, and is planned or refused with a typed error. An
//! invalid line gives an error that points into the line. Nothing panics or overflows.
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
        Err(other) => panic!("not a parse error: {other}"),
    };
    assert_eq!(problem.to_string().parse(), Ok(problem.clone()));
    let _ = cost::chain(&problem.chain(), problem.input);
    // A network takes a second to plan.
    if matches!(problem.operation, Operation::Network(_)) {
        return;
    }
    for caps in [Caps::webgpu(), Caps { is_cpu: true, subgroup: Some([8, 8]), int64: true, f16: true, ..Caps::webgpu() }] {
        let _ = planner::schedule(&problem.chain(), problem.input, problem.layout, &caps, &Choice::Auto);
    }
});
