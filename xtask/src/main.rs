//! Checks, interop, simulation and benchmarks of the workspace.
fn main() {}
