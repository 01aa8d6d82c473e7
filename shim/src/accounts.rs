//! Files of a control group, as the guest tells them.
//!
//! Invariant: what is missing or makes no sense counts as 0.

/// Names of files and their contents.
pub(crate) struct Files<'a>(pub(crate) &'a [(String, String)]);

impl Files<'_> {
    /// The content of a file.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(file, _)| file == name).map_or("", |(_, text)| text.trim())
    }

    /// The number in a file; `max` is the largest there is.
    pub(crate) fn number(&self, name: &str) -> u64 {
        match self.text(name) {
            "max" => u64::MAX,
            text => text.parse().unwrap_or(0),
        }
    }

    /// The number of `key` in a file of lines "key number".
    pub(crate) fn entry(&self, name: &str, key: &str) -> u64 {
        let mut lines = self.text(name).lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0)
    }

    /// The lines of `io.stat`: the device's numbers, and its counters by their names.
    pub(crate) fn io(&self) -> impl Iterator<Item = (u64, u64, Vec<(&str, u64)>)> {
        self.text("io.stat").lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (major, minor) = words.next()?.split_once(':')?;
            let number = |text: &str| text.parse::<u64>().unwrap_or(0);
            let counter = |word| {
                let (key, value): (&str, &str) = str::split_once(word, '=')?;
                Some((key, number(value)))
            };
            Some((number(major), number(minor), words.filter_map(counter).collect()))
        })
    }
}
