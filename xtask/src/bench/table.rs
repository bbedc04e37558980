//! Figures and how they are shown: medians with their spread, and ratios to the floor and to ours.

use std::fmt::Write as _;

/// One client's turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// CPU seconds per GiB.
    pub cpu: f64,
    /// Seconds by the clock.
    pub wall: f64,
}

/// The turns of one client.
#[derive(Clone, Debug)]
pub struct Row {
    /// Who.
    pub name: String,
    /// Its turns, in order.
    pub samples: Vec<Sample>,
}

/// What one table shows.
pub struct Table {
    /// Its heading.
    pub title: String,
    /// Its rows; the first is the floor, the second ours.
    pub rows: Vec<Row>,
    /// By what clients are compared: CPU time, or the clock.
    pub by: By,
}

/// By what clients are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// CPU seconds per GiB.
    Cpu,
    /// Seconds by the clock.
    Wall,
}

impl By {
    fn of(self, sample: &Sample) -> f64 {
        match self {
            By::Cpu => sample.cpu,
            By::Wall => sample.wall,
        }
    }
}

impl Row {
    /// The median of what is compared.
    pub fn median(&self, by: By) -> f64 {
        median(self.samples.iter().map(|sample| by.of(sample)).collect())
    }
}

impl Table {
    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title);
        text.push_str(
            "| who | CPU s/GiB | least - most | seconds | x floor | x ours |\n|---|--:|--:|--:|--:|--:|\n",
        );
        let reference = |index: usize| self.rows.get(index).map_or(f64::NAN, |row| row.median(self.by));
        let (floor, ours) = (reference(0), reference(1));
        for row in &self.rows {
            let own = row.median(self.by);
            let cpus: Vec<_> = row.samples.iter().map(|sample| sample.cpu).collect();
            let least = cpus.iter().copied().fold(f64::INFINITY, f64::min);
            let most = cpus.iter().copied().fold(0.0, f64::max);
            let (cpu, wall) = (row.median(By::Cpu), row.median(By::Wall));
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "| {} | {cpu:.2} | {least:.2} - {most:.2} | {wall:.1} | {:.2} | {:.2} |",
                row.name,
                own / floor,
                own / ours
            );
        }
        text
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        let row = |name: &str, cpu: f64| Row {
            name: name.to_owned(),
            samples: [cpu, cpu * 2.0, cpu * 3.0].map(|cpu| Sample { cpu, wall: 1.0 }).to_vec(),
        };
        let table = Table { title: "t".into(), rows: vec![row("floor", 0.5), row("ours", 1.0)], by: By::Cpu };
        let text = table.markdown();
        assert!(text.contains("| floor | 1.00 | 0.50 - 1.50 | 1.0 | 1.00 | 0.50 |"), "{text}");
        assert!(text.contains("| ours | 2.00 | 1.00 - 3.00 | 1.0 | 2.00 | 1.00 |"), "{text}");
    }
}
