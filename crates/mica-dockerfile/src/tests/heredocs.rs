use std::borrow::Cow;

use super::*;
use crate::ast::RunScript;

/// Returns name and body of every heredoc.
fn bodies(copy: &AddCopy) -> Vec<(&str, Cow<'_, str>)> {
    copy.heredocs.iter().map(|heredoc| (heredoc.name.as_str(), heredoc.content())).collect()
}

fn title(text: &str) -> String {
    parsed(&format!("FROM B\n{text}")).stages[0].commands[0].origin.original.clone()
}

#[test]
fn p25_only_some_instructions_have_heredocs() {
    assert_eq!(instructions("ENV A=<<E\nRUN x\n").len(), 2);
    assert_eq!(instructions("CMD cat <<E\nRUN x\n").len(), 2);
    assert_eq!(instructions("RUN [\"cat\", \"<<E\"]\nRUN x\n").len(), 2);
    assert_eq!(copy("COPY [\"<<E\", \"/x\"]").sources, strings(&["<<E"]));
    assert_eq!(instructions("ONBUILD ENV A=<<E\nRUN x\n").len(), 2);
    assert_eq!(instructions("ONBUILD RUN [\"<<E\"]\nRUN x\n").len(), 2);
}

#[test]
fn p26_tokens_may_have_a_descriptor_and_bodies_follow_in_order() {
    let two = run("RUN 3<<A cat <<-'B'\n1\nA\n\t2\n\tB\n");
    assert_eq!(two.heredocs.len(), 2);
    assert_eq!((two.heredocs[0].file_descriptor, two.heredocs[0].body.as_str()), (3, "1\n"));
    assert!(two.heredocs[0].expand && !two.heredocs[0].strip_tabs);
    assert_eq!((two.heredocs[1].name.as_str(), two.heredocs[1].body.as_str()), ("B", "\t2\n"));
    assert!(!two.heredocs[1].expand && two.heredocs[1].strip_tabs);
}

#[test]
fn p26_other_uses_of_less_than_are_not_tokens() {
    for line in ["cat <<<x", "cat<<E", "a < b << ", "echo \"<<E\"", "x <<-", "echo \\<<E", "a <<<E", "'<<E'"]
    {
        assert!(run(&format!("RUN {line}")).heredocs.is_empty(), "{line}");
    }
}

#[test]
fn p27_terminators_stand_alone() {
    let copied = copy("COPY <<E /f\n E\nE \nEE\nE\n");
    assert_eq!(bodies(&copied), [("E", " E\nE \nEE\n".into())]);
    assert_eq!(bodies(&copy("COPY <<E /f\r\na\r\nE\r\n")), [("E", "a\r\n".into())]);
    let error = refused_instruction("COPY <<E /f\na\n");
    assert_eq!(error, "dockerfile parse error on line 2: unterminated heredoc");
}

#[test]
fn p27_a_dash_strips_tabs_and_nothing_else() {
    let copied = copy("COPY <<-EOF /f\n\t\ta\n\t  b\n  c\n\tEOF\n");
    assert_eq!(bodies(&copied), [("EOF", "a\n  b\n  c\n".into())]);
    assert!(refused_instruction("COPY <<-EOF /f\na\n  EOF\n").contains("unterminated heredoc"));
    assert!(refused_instruction("COPY <<EOF /f\na\n\tEOF\n").contains("unterminated heredoc"));
}

#[test]
fn p28_quotes_in_the_delimiter_turn_expansion_off() {
    for (token, name, expand) in [
        ("E", "E", true),
        ("'E'", "E", false),
        ("\"E\"", "E", false),
        ("E\"O\"F", "EOF", false),
        ("$V", "$V", true),
    ] {
        let copied = copy(&format!("COPY <<{token} /f\n{name}\n"));
        assert_eq!((copied.heredocs[0].name.as_str(), copied.heredocs[0].expand), (name, expand), "{token}");
    }
}

#[test]
fn p29_a_single_heredoc_is_the_script() {
    let plain = run("RUN <<EOF\nfalse\necho ok\nEOF\n");
    assert_eq!(plain.script(), RunScript::Shell("false\necho ok\n".into()));
    let chomped = run("RUN <<-EOF\n\ta\n\tEOF\n");
    assert_eq!(chomped.script(), RunScript::Shell("a\n".into()));
    let program = run("RUN <<\"E\"\n#!/bin/sh -e\nfalse\nE\n");
    assert_eq!(program.script(), RunScript::File { name: "E", body: "#!/bin/sh -e\nfalse\n".into() });
    assert_eq!(run("RUN [\"a\"]").script(), RunScript::Exec(&strings(&["a"])));
    assert_eq!(run("RUN a").script(), RunScript::Shell("a".into()));
}

#[test]
fn p30_other_commands_get_their_heredocs_back() {
    let python = run("RUN python3 <<EOF\n\tprint(1)\nEOF\n");
    assert_eq!(python.script(), RunScript::Shell("python3 <<EOF\n\tprint(1)\nEOF".into()));
    let two = run("RUN cat <<A >x && cat <<-'B' >y\n1\nA\n\t2\n\tB\n");
    assert_eq!(two.script(), RunScript::Shell("cat <<A >x && cat <<-'B' >y\n1\nA\n\t2\nB".into()));
    let flagged = run("RUN --network=none <<E\n#!/x\nE\n");
    assert!(matches!(flagged.script(), RunScript::File { .. }));
}

#[test]
fn p31_a_blank_before_the_delimiter_is_for_run_only() {
    assert_eq!(run("RUN << EOF\na\nEOF\n").script(), RunScript::Shell("a\n".into()));
    let copied = copy("COPY << EOF /x\na\nEOF\n");
    assert_eq!((copied.sources, copied.heredocs.len()), (strings(&["<<", "EOF"]), 0));
}

#[test]
fn p33_sources_are_parted_and_the_last_body_wins() {
    let copied = copy("COPY a <<x b <<y /d/\n1\nx\n2\ny\n");
    assert_eq!(copied.sources, strings(&["a", "b"]));
    assert_eq!(bodies(&copied), [("x", "1\n".into()), ("y", "2\n".into())]);
    let twice = copy("COPY <<x <<x /d/\n1\nx\n2\nx\n");
    assert_eq!(bodies(&twice), [("x", "2\n".into()), ("x", "2\n".into())]);
    assert!(
        refused_instruction("COPY a <<E\nx\nE\n").contains("COPY cannot accept a heredoc as a destination")
    );
    assert!(
        refused_instruction("ADD a <<E\nx\nE\n").contains("ADD cannot accept a heredoc as a destination")
    );
}

#[test]
fn p34_titles_show_the_first_line_of_a_script() {
    assert_eq!(title("RUN <<EOF\n\n echo a \r\nb\nEOF\n"), "RUN <<EOF (echo a ...)");
    assert_eq!(title("RUN <<EOF\necho a\nEOF\n"), "RUN <<EOF (echo a)");
    assert_eq!(title("RUN cat <<EOF\necho a\nEOF\n"), "RUN cat <<EOF");
    assert_eq!(title("COPY <<EOF /dest\na\nEOF\n"), "COPY <<EOF /dest");
}

#[test]
fn comments_and_continuations_mean_nothing_in_bodies() {
    let copied = copy("COPY <<E /f\n# a\nb \\\nE\n");
    assert_eq!(bodies(&copied), [("E", "# a\nb \\\n".into())]);
}

#[test]
fn a_heredoc_may_be_announced_on_a_continuation_line() {
    let copied = copy("COPY --chmod=755 \\\n  <<E \\\n  /f\nx\nE\n");
    assert_eq!(bodies(&copied), [("E", "x\n".into())]);
}
