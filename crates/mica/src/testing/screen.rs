//! A small terminal: what a person would see of what was written.

use unicode_width::UnicodeWidthChar;

/// Rows of a terminal, those that have scrolled away included.
pub(crate) struct Screen {
    columns: usize,
    rows: usize,
    /// What each row shows, and whether it goes on in the next one.
    lines: Vec<(Vec<char>, bool)>,
    /// Where the next character goes, counted from the oldest row.
    cursor: (usize, usize),
}

impl Screen {
    pub(crate) fn new((columns, rows): (usize, usize)) -> Self {
        Self { columns, rows, lines: vec![(Vec::new(), false)], cursor: (0, 0) }
    }

    /// Everything that can be read, scrolled away or not, without empty rows at the end.
    pub(crate) fn text(&self) -> Vec<String> {
        let shown = |(line, _): &(Vec<char>, bool)| {
            line.iter().filter(|c| **c != '\0').collect::<String>().trim_end().to_owned()
        };
        let mut text: Vec<String> = self.lines.iter().map(shown).collect();
        while text.last().is_some_and(String::is_empty) {
            text.pop();
        }
        text
    }

    /// How many rows have been continued because their text was too long.
    pub(crate) fn wrapped(&self) -> usize {
        self.lines.iter().filter(|(_, goes_on)| *goes_on).count()
    }

    /// Another size: lines are wrapped anew, as most terminals do. The cursor is at the end.
    pub(crate) fn resize(&mut self, (columns, rows): (usize, usize)) {
        let mut whole: Vec<Vec<char>> = vec![Vec::new()];
        for (line, goes_on) in self.lines.drain(..) {
            whole.last_mut().expect("there is one").extend(line);
            if !goes_on {
                whole.push(Vec::new());
            }
        }
        whole.pop();
        for line in whole {
            let parts: Vec<Vec<char>> = match line.is_empty() {
                true => vec![Vec::new()],
                false => line.chunks(columns).map(<[char]>::to_vec).collect(),
            };
            let last = parts.len() - 1;
            self.lines.extend(parts.into_iter().enumerate().map(|(index, part)| (part, index < last)));
        }
        (self.columns, self.rows) = (columns, rows);
        self.cursor = (self.lines.len() - 1, 0);
    }

    /// Shows what was written.
    pub(crate) fn write(&mut self, text: &str) {
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\r' => self.cursor.1 = 0,
                '\n' => self.down(false),
                '\u{1b}' => self.escape(&mut chars),
                c => self.put(c),
            }
        }
    }

    fn down(&mut self, goes_on: bool) {
        self.lines[self.cursor.0].1 = goes_on;
        self.cursor.0 += 1;
        if self.cursor.0 == self.lines.len() {
            self.lines.push((Vec::new(), false));
        }
    }

    fn put(&mut self, c: char) {
        let width = c.width().unwrap_or_default();
        assert!(width > 0 && !c.is_control(), "{c:?} has no place on a terminal");
        if self.cursor.1 + width > self.columns {
            self.down(true);
            self.cursor.1 = 0;
        }
        let (line, _) = &mut self.lines[self.cursor.0];
        line.resize(line.len().max(self.cursor.1 + width), ' ');
        line[self.cursor.1] = c;
        if width == 2 {
            line[self.cursor.1 + 1] = '\0';
        }
        self.cursor.1 += width;
    }

    fn escape(&mut self, chars: &mut std::str::Chars<'_>) {
        assert_eq!(chars.next(), Some('['), "only control sequences are written");
        let mut number = String::new();
        let end = loop {
            match chars.next().expect("a control sequence ends") {
                c @ '@'..='~' => break c,
                c => number.push(c),
            }
        };
        match end {
            'A' => {
                // not above the first row that is visible
                let first = self.lines.len().saturating_sub(self.rows);
                let up = number.parse().expect("a number of rows");
                self.cursor.0 = self.cursor.0.saturating_sub(up).max(first);
            }
            'K' => {
                self.lines[self.cursor.0].0.truncate(self.cursor.1);
                self.lines[self.cursor.0].1 = false;
            }
            'J' => {
                self.lines.truncate(self.cursor.0 + 1);
                self.lines[self.cursor.0].0.truncate(self.cursor.1);
            }
            'h' | 'l' | 'm' => {}
            other => panic!("the terminal knows no CSI {number}{other}"),
        }
    }
}
