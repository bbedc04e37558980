//! `xtask sim`: plays scenarios by name and seed, and says how to play again what went wrong.

use std::ops::Range;
use std::process::ExitCode;

use crate::scenario::{ALL, Scenario, named};

/// Every so many seeds one is played twice, to see that it goes the same way.
const TWICE_EVERY: u64 = 10;
/// Seeds of one scenario that may fail before the others are left alone.
const FAILURES: usize = 5;

const USAGE: &str = "usage: sim [--scenario NAME] [--seed N | --seeds FROM..TO] [--trace] [--list]";

struct Wishes {
    scenarios: Vec<&'static Scenario>,
    seeds: Range<u64>,
    trace: bool,
}

/// Does what `args` (without the name of the program) say.
pub fn cli(args: &[String]) -> ExitCode {
    let wishes = match parse(args) {
        Ok(Some(wishes)) => wishes,
        Ok(None) => {
            println!("{USAGE}");
            ALL.iter().for_each(|scenario| println!("{:<14} {}", scenario.name, scenario.about));
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut good = true;
    for scenario in &wishes.scenarios {
        good &= play(scenario, &wishes);
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play(scenario: &Scenario, wishes: &Wishes) -> bool {
    let (mut events, mut seconds, mut trace, mut failures) = (0, 0, 0_u64, 0);
    let mut received = (0, 0);
    let mut played = 0;
    for seed in wishes.seeds.clone() {
        let result = match wishes.trace {
            true => scenario.run(seed, true),
            false => scenario.check(seed, seed.is_multiple_of(TWICE_EVERY)),
        };
        played += 1;
        match result {
            Ok(report) => {
                events += report.events;
                seconds += report.seconds;
                received = (received.0 + report.received.0, received.1 + report.received.1);
                trace = trace.rotate_left(9) ^ report.trace;
            }
            Err(why) => {
                failures += 1;
                println!("{}: seed {seed}: {why}", scenario.name);
                println!("xtask sim --scenario {} --seed {seed}", scenario.name);
            }
        }
        if failures == FAILURES {
            break;
        }
    }
    let name = scenario.name;
    let waste = received.1 * 100 / received.0.max(1);
    println!(
        "{name:<14} {played} seeds, {failures} failed, {events} events, {seconds} s, {waste} % waste, trace {trace:016x}"
    );
    failures == 0
}

/// `None`: the list is wanted.
fn parse(args: &[String]) -> Result<Option<Wishes>, String> {
    let mut wishes = Wishes { scenarios: ALL.iter().collect(), seeds: 0..20, trace: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--list" | "--help" => return Ok(None),
            "--trace" => wishes.trace = true,
            "--scenario" => {
                let name = value()?;
                wishes.scenarios = vec![named(name).ok_or_else(|| format!("there is no scenario {name:?}"))?];
            }
            "--seed" => {
                let seed = number(value()?)?;
                wishes.seeds = seed..seed.saturating_add(1);
            }
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or_else(|| format!("{text:?} is no FROM..TO"))?;
                wishes.seeds = number(from)?..number(to)?;
            }
            other => return Err(format!("{other:?} is not understood")),
        }
    }
    Ok(Some(wishes))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_are_read() {
        let wishes = parse(&words("--scenario liar --seeds 3..9 --trace")).unwrap().unwrap();
        assert_eq!((wishes.scenarios.len(), wishes.seeds, wishes.trace), (1, 3..9, true));
        let wishes = parse(&words("--seed 7")).unwrap().unwrap();
        assert_eq!((wishes.scenarios.len(), wishes.seeds), (ALL.len(), 7..8));
        assert!(parse(&words("--list")).unwrap().is_none());
        for bad in ["--scenario none", "--seed", "--seed x", "--seeds 3", "what"] {
            assert!(parse(&words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_told_apart() {
        assert!(ALL.iter().all(|scenario| named(scenario.name).unwrap().about == scenario.about));
    }
}
