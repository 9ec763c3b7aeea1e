//! `mica logs`: what a container printed.

use mica_api::{Class, LogRequest, Timestamp};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::{Foreign, Verb};
use crate::format::human;
use crate::values::moment;

/// Show what a container printed
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// Go on while the container runs
    #[arg(short, long)]
    follow: bool,
    /// Nothing older than this: 42m, 2024-01-02T13:23:37Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the last so many lines
    #[arg(short = 'n', long, default_value = "all", value_name = "LINES", hide_default_value = true)]
    tail: String,
    /// Show when each line was printed
    #[arg(short, long)]
    timestamps: bool,
    /// Nothing newer than this
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Container: name or ID
    container: String,
}

impl LogsArgs {
    fn request(&self, cx: &Cx) -> Result<LogRequest, Failure> {
        let moment = |text: &Option<String>| -> Result<Option<Timestamp>, Failure> {
            let Some(text) = text else { return Ok(None) };
            match moment::parse(text, cx.now, cx.zone()) {
                Some(at) => Ok(Some(at)),
                None => Err(Failure::new(Class::Invalid, format!("invalid time {text:?}"))),
            }
        };
        // docker takes anything that is not a number, and negative numbers, for "all".
        let tail = self.tail.parse().ok();
        Ok(LogRequest {
            container: self.container.clone(),
            tail,
            follow: self.follow,
            since: moment(&self.since)?,
            until: moment(&self.until)?,
        })
    }
}

impl Verb for LogsArgs {
    const USAGE: &'static str = "[OPTIONS] CONTAINER";
    const FOREIGN: &'static [Foreign] = &[Foreign::idle_switch("details", "logs have no extra attributes")];

    fn run(self, cx: &Cx) -> Outcome {
        let request = self.request(cx)?;
        let mut unwritable = None;
        let result = cx.engine()?.logs(request, &cx.cancel, &mut |line| {
            let stream = if line.stderr { &cx.err } else { &cx.out };
            let mut bytes = Vec::new();
            if self.timestamps {
                bytes.extend(format!("{} ", human::rfc3339_nanos(line.at)).into_bytes());
            }
            bytes.extend(&line.data);
            stream.bytes(&bytes).map_err(|failure| {
                unwritable = Some(failure);
                mica_api::Error::new(Class::Cancelled, "the output is gone")
            })
        });
        match (unwritable, result) {
            (Some(failure), _) => Err(failure),
            (None, Ok(())) => Ok(Status::default()),
            (None, Err(error)) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn each_line_goes_where_the_container_printed_it() {
        golden("logs", &Bench::new().run(&["logs", "web"]).text());
        golden("logs-timestamps", &Bench::new().run(&["logs", "-t", "web"]).text());
    }

    #[test]
    fn ranges_are_translated() {
        let bench = Bench::new();
        bench.run(&["logs", "-f", "-n", "5", "--since", "10m", "--until", "2023-11-14", "web"]);
        bench.run(&["logs", "--tail", "-1", "web"]);
        golden("logs-calls", &bench.calls());
        golden("logs-bad-time", &Bench::new().run(&["logs", "--since", "soon", "web"]).text());
    }
}
