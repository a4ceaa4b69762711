//! A short history: one number for each second.

/// Points a history keeps: five minutes of seconds.
pub const POINTS: usize = 300;

/// A second of which nothing is known.
const GAP: u32 = u32::MAX;

/// The last [`POINTS`] numbers, one per second. It takes no memory before the first that is not 0.
///
/// ```
/// use anabranch_tui::store::Ring;
///
/// let mut ring = Ring::default();
/// ring.push(7, 1);
/// ring.push(9, 2);
/// ring.gap(1);
/// assert_eq!(ring.last(3).collect::<Vec<_>>(), [Some(9), Some(9), None]);
/// ```
#[derive(Debug, Default, Clone)]
pub struct Ring {
    points: Vec<u32>,
    /// Where the oldest is, once all places are taken.
    start: usize,
}

impl Ring {
    /// Adds a number for each of the last `seconds` seconds.
    pub fn push(&mut self, number: u32, seconds: usize) {
        // What was never anything but 0 is drawn as nothing: an idle branch costs nothing.
        if number > 0 || !self.points.is_empty() {
            self.add(number.min(GAP - 1), seconds);
        }
    }

    /// Adds seconds of which nothing is known.
    pub fn gap(&mut self, seconds: usize) {
        if !self.points.is_empty() {
            self.add(GAP, seconds);
        }
    }

    fn add(&mut self, number: u32, seconds: usize) {
        if self.points.capacity() == 0 {
            self.points.reserve_exact(POINTS);
        }
        for _ in 0..seconds.min(POINTS) {
            if self.points.len() < POINTS {
                self.points.push(number);
            } else {
                self.points[self.start] = number;
                self.start = (self.start + 1) % POINTS;
            }
        }
    }

    /// The last so many seconds, the oldest first; fewer, if it is not that old.
    pub fn last(&self, seconds: usize) -> impl ExactSizeIterator<Item = Option<u32>> + '_ {
        let length = self.points.len();
        let count = seconds.min(length);
        (length - count..length).map(move |index| {
            let point = self.points[(self.start + index) % length];
            (point != GAP).then_some(point)
        })
    }

    /// The newest number, if there is one.
    pub fn newest(&self) -> Option<u32> {
        self.last(1).next().flatten()
    }

    /// The last `seconds` seconds as `bars` averages, the newest at the end. What is not known, or
    /// is older than the history, is `None`.
    pub fn bars(&self, seconds: usize, bars: usize) -> Vec<Option<f64>> {
        let known = self.last(seconds);
        let missing = seconds - known.len();
        let points: Vec<_> = known.collect();
        let edge = |bar: usize| bar * seconds / bars.max(1);
        (0..bars)
            .map(|bar| {
                let (from, to) = (edge(bar), edge(bar + 1).max(edge(bar) + 1));
                let inside = from.saturating_sub(missing)..to.saturating_sub(missing);
                let inside = points.get(inside).unwrap_or_default();
                let (sum, count) = inside
                    .iter()
                    .flatten()
                    .fold((0.0, 0.0), |(sum, count), point| {
                        (sum + f64::from(*point), count + 1.0)
                    });
                (count > 0.0).then(|| sum / count)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_idle_history_takes_no_memory() {
        let mut ring = Ring::default();
        ring.push(0, 200);
        ring.gap(3);
        assert_eq!(ring.points.capacity(), 0);
        assert_eq!(ring.bars(60, 3), [None, None, None]);
    }

    #[test]
    fn bars_are_averages_with_the_newest_last() {
        let mut ring = Ring::default();
        for number in [10, 20, 30, 50] {
            ring.push(number, 1);
        }
        assert_eq!(ring.bars(4, 2), [Some(15.0), Some(40.0)]);
        assert_eq!(ring.bars(8, 4), [None, None, Some(15.0), Some(40.0)]);
        assert_eq!(ring.bars(2, 4).len(), 4, "more bars than seconds");
    }

    proptest! {
        #[test]
        fn it_keeps_the_newest_and_never_more_than_its_size(
            pushes in proptest::collection::vec((1u32..1000, 1usize..40), 1..60),
        ) {
            let mut ring = Ring::default();
            let mut all = Vec::new();
            for (number, seconds) in &pushes {
                ring.push(*number, *seconds);
                all.extend(std::iter::repeat_n(Some(*number), *seconds));
            }
            let kept = &all[all.len().saturating_sub(POINTS)..];
            prop_assert_eq!(ring.last(1000).collect::<Vec<_>>(), kept);
            prop_assert_eq!(ring.newest(), kept.last().copied().flatten());
            prop_assert_eq!(ring.points.capacity(), POINTS);
        }
    }
}
