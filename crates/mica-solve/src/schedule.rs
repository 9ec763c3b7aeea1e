//! In which order vertices run: only what the target needs, inputs first, everything independent at once.
//!
//! A pure state machine: it is told what is known and what ended, and answers what can start. It never looks at the
//! cache or at a clock.

use crate::{Graph, VertexId};

/// Where a vertex stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VertexState {
    /// Nobody needs it so far.
    Idle,
    /// So many of its inputs are still missing.
    Waiting {
        /// Inputs without a result.
        missing: usize,
    },
    /// Handed out to run.
    Started,
    /// Its result is there.
    Done,
}

/// The schedule of one build.
#[derive(Debug)]
pub struct Schedule {
    states: Vec<VertexState>,
    users: Vec<Vec<VertexId>>,
    inputs: Vec<Vec<VertexId>>,
    ready: Vec<VertexId>,
    unfinished: usize,
}

impl Schedule {
    /// A schedule in which nothing is needed yet.
    pub fn new(graph: &Graph) -> Self {
        let inputs: Vec<Vec<VertexId>> = graph.iter().map(|(_, vertex)| distinct(&vertex.inputs)).collect();
        Self {
            states: vec![VertexState::Idle; graph.len()],
            users: vec![Vec::new(); graph.len()],
            inputs,
            ready: Vec::new(),
            unfinished: 0,
        }
    }

    /// Says that a result is known already, from the cache. Call it before [`Schedule::demand`].
    pub fn known(&mut self, id: VertexId) {
        self.states[index(id)] = VertexState::Done;
    }

    /// Says that a result is needed, and with it everything it needs.
    pub fn demand(&mut self, target: VertexId) {
        let mut pending = vec![target];
        while let Some(id) = pending.pop() {
            if self.states[index(id)] != VertexState::Idle {
                continue;
            }
            let inputs = self.inputs[index(id)].clone();
            let missing: Vec<VertexId> =
                inputs.into_iter().filter(|input| self.states[index(*input)] != VertexState::Done).collect();
            for input in &missing {
                self.users[index(*input)].push(id);
            }
            self.unfinished += 1;
            self.states[index(id)] = VertexState::Waiting { missing: missing.len() };
            if missing.is_empty() {
                self.ready.push(id);
            }
            pending.extend(missing);
        }
    }

    /// Takes a vertex that can start now: the one added to the graph first.
    pub fn next_ready(&mut self) -> Option<VertexId> {
        let first = self.ready.iter().enumerate().min_by_key(|(_, id)| **id).map(|(position, _)| position)?;
        let id = self.ready.swap_remove(first);
        self.states[index(id)] = VertexState::Started;
        Some(id)
    }

    /// Says that a started vertex has its result.
    pub fn done(&mut self, id: VertexId) {
        debug_assert_eq!(self.states[index(id)], VertexState::Started, "only started vertices end");
        self.states[index(id)] = VertexState::Done;
        self.unfinished -= 1;
        for user in std::mem::take(&mut self.users[index(id)]) {
            if let VertexState::Waiting { missing } = &mut self.states[index(user)] {
                *missing -= 1;
                if *missing == 0 {
                    self.ready.push(user);
                }
            }
        }
    }

    /// Where a vertex stands.
    pub fn state(&self, id: VertexId) -> VertexState {
        self.states[index(id)]
    }

    /// Whether everything that was demanded is done.
    pub fn is_finished(&self) -> bool {
        self.unfinished == 0
    }
}

fn index(id: VertexId) -> usize {
    id.0 as usize
}

fn distinct(inputs: &[VertexId]) -> Vec<VertexId> {
    let mut sorted = inputs.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileAction, FileOp, Input, MakeDirectory, Op, Vertex};

    fn vertex(name: &str, inputs: &[VertexId]) -> Vertex {
        let action = FileAction::MakeDirectory(MakeDirectory {
            path: format!("/{name}"),
            mode: 0o755,
            owner: None,
            created_seconds: 0,
        });
        Vertex {
            op: Op::File(FileOp { base: Input::Scratch, actions: vec![action] }),
            inputs: inputs.to_vec(),
            name: name.to_owned(),
            ignore_cache: false,
            lines: None,
        }
    }

    fn diamond() -> (Graph, [VertexId; 4]) {
        let mut graph = Graph::default();
        let a = graph.add(vertex("a", &[]));
        let b = graph.add(vertex("b", &[a]));
        let c = graph.add(vertex("c", &[a]));
        let d = graph.add(vertex("d", &[b, c, c]));
        (graph, [a, b, c, d])
    }

    #[test]
    fn inputs_run_first_and_siblings_together() {
        let (graph, [a, b, c, d]) = diamond();
        let mut schedule = Schedule::new(&graph);
        schedule.demand(d);
        assert_eq!(schedule.next_ready(), Some(a));
        assert_eq!(schedule.next_ready(), None);
        schedule.done(a);
        assert_eq!(
            (schedule.next_ready(), schedule.next_ready(), schedule.next_ready()),
            (Some(b), Some(c), None)
        );
        schedule.done(c);
        assert_eq!(schedule.next_ready(), None);
        schedule.done(b);
        assert_eq!(schedule.next_ready(), Some(d));
        assert!(!schedule.is_finished());
        schedule.done(d);
        assert!(schedule.is_finished());
    }

    #[test]
    fn what_is_known_needs_nothing_below_it() {
        let (graph, [a, b, c, d]) = diamond();
        let mut schedule = Schedule::new(&graph);
        schedule.known(b);
        schedule.known(c);
        schedule.demand(d);
        assert_eq!(schedule.next_ready(), Some(d));
        assert_eq!(schedule.state(a), VertexState::Idle);
    }

    #[test]
    fn equal_vertices_are_one() {
        let mut graph = Graph::default();
        let one = graph.add(vertex("same", &[]));
        let two = graph.add(Vertex { name: "other title".into(), ..vertex("same", &[]) });
        assert_eq!(one, two);
        assert_eq!(graph.len(), 1);
    }
}
