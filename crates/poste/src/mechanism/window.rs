//! Things in the order in which they are to be delivered: the highest priority first, and within
//! one priority as they came. Every operation takes constant time.

use std::collections::VecDeque;

use crate::limits::PRIORITY_MAX;

/// One queue for each priority, 0 to 31. The others are made when the first urgent thing comes.
#[derive(Debug)]
pub struct Window<T> {
    ordinary: VecDeque<T>,
    /// `urgent[p - 1]` holds priority `p`.
    urgent: Vec<VecDeque<T>>,
    /// Bit `p`: priority `p` has something.
    occupied: u32,
    len: usize,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Window { ordinary: VecDeque::new(), urgent: Vec::new(), occupied: 0, len: 0 }
    }
}

impl<T> Window<T> {
    /// Puts a thing in; priorities above the highest count as the highest.
    #[inline]
    pub fn push(&mut self, priority: u16, thing: T) {
        let priority = usize::from(priority.min(PRIORITY_MAX));
        self.occupied |= 1 << priority;
        self.len += 1;
        if priority == 0 {
            self.ordinary.push_back(thing);
        } else {
            if self.urgent.is_empty() {
                self.urgent.resize_with(usize::from(PRIORITY_MAX), VecDeque::new);
            }
            self.urgent[priority - 1].push_back(thing);
        }
    }

    /// Takes the next thing out, with its priority.
    #[inline]
    pub fn pop(&mut self) -> Option<(u16, T)> {
        let priority = self.occupied.checked_ilog2()? as usize;
        let queue = self.queue(priority);
        let thing = queue.pop_front()?;
        if queue.is_empty() {
            self.occupied &= !(1 << priority);
        }
        self.len -= 1;
        Some((priority as u16, thing))
    }

    #[inline]
    fn queue(&mut self, priority: usize) -> &mut VecDeque<T> {
        match priority.checked_sub(1) {
            None => &mut self.ordinary,
            Some(index) => &mut self.urgent[index],
        }
    }

    /// The priority of the next thing.
    #[must_use]
    pub fn priority(&self) -> Option<u16> {
        self.occupied.checked_ilog2().map(|priority| priority as u16)
    }

    /// How many things are in.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first thing of each priority, in no order.
    pub fn fronts(&self) -> impl Iterator<Item = &T> {
        self.ordinary.front().into_iter().chain(self.urgent.iter().filter_map(VecDeque::front))
    }

    /// Takes everything out that doesn't fulfil a condition.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.ordinary.retain(&mut keep);
        self.urgent.iter_mut().for_each(|queue| queue.retain(&mut keep));
        self.len = 0;
        self.occupied = 0;
        for priority in 0..=self.urgent.len() {
            let len = self.queue(priority).len();
            self.len += len;
            self.occupied |= u32::from(len > 0) << priority;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_first_and_in_order_within() {
        let mut window = Window::default();
        for (index, priority) in [0, 31, 5, 0, 31, 40, 5].into_iter().enumerate() {
            window.push(priority, index);
        }
        let order: Vec<_> = std::iter::from_fn(|| window.pop()).collect();
        assert_eq!(order, [(31, 1), (31, 4), (31, 5), (5, 2), (5, 6), (0, 0), (0, 3)]);
        assert!(window.is_empty());
    }

    #[test]
    fn what_is_taken_out_by_a_condition_is_not_counted() {
        let mut window = Window::default();
        (0..6).for_each(|thing| window.push(thing % 3, thing));
        window.retain(|thing| *thing % 3 == 1);
        assert_eq!(window.len(), 2);
        assert_eq!(window.pop(), Some((1, 1)));
        assert_eq!(window.pop(), Some((1, 4)));
        assert_eq!(window.pop(), None);
    }
}
