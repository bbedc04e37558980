//! Two stacks against each other, and one against packets made by hand.

use super::*;

mod congestion;
mod link;
mod rules;
mod streams;
