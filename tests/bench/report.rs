//! What a bench prints: one JSON object on one line. Each figure is a cost; a ratio is ours divided by theirs, of the first figure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

/// Figures by name, the first of which is compared.
#[derive(Debug, Default, Clone)]
pub struct Figures(Vec<(&'static str, f64)>);

/// A peer that could not run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Missing {
    /// Which.
    pub peer: String,
    /// Why.
    pub reason: String,
}

/// All of it.
#[derive(Debug)]
pub struct Report {
    /// The bench.
    pub name: &'static str,
    /// How many were measured of ours.
    pub runs: usize,
    /// Ours.
    pub ours: Figures,
    /// The peers'.
    pub peers: BTreeMap<String, Figures>,
    /// Those that could not run.
    pub missing: Vec<Missing>,
}

impl Figures {
    /// Adds one.
    pub fn with(mut self, name: &'static str, figure: f64) -> Self {
        self.0.push((name, rounded(figure)));
        self
    }

    fn first(&self) -> f64 {
        self.0.first().map_or(f64::NAN, |(_, figure)| *figure)
    }
}

/// In the order in which they were given.
impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}

/// The value below which this share (in hundredths) of the figures is.
pub fn percentile(figures: &[f64], share: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() * share / 100).copied().unwrap_or(f64::NAN)
}

/// As it is printed.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    runs: usize,
    ours: &'a Figures,
    peers: &'a BTreeMap<String, Figures>,
    ratios: BTreeMap<&'a str, f64>,
    missing: &'a [Missing],
}

impl Report {
    /// One JSON object.
    ///
    /// # Errors
    /// A figure that is no number.
    pub fn line(&self) -> serde_json::Result<String> {
        let Self { name, runs, ours, peers, missing } = self;
        let ratio = |theirs: &Figures| rounded(ours.first() / theirs.first());
        let ratios = peers.iter().map(|(key, theirs)| (key.as_str(), ratio(theirs))).collect();
        serde_json::to_string(&Line { name, runs: *runs, ours, peers, ratios, missing })
    }
}
