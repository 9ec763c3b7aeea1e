//! COPY and ADD (build.md 3.3, 3.4).

use mica_solve::{FileAction, Input, MakeFile, ModeChange, Op, Owner, OwnerId};

use super::support::{Fake, build, build_with, refused};
use crate::Converted;

fn heredocs(image: &Converted) -> Vec<&MakeFile> {
    image
        .actions()
        .into_iter()
        .filter_map(|action| match action {
            FileAction::MakeFile(file) => Some(file),
            _ => None,
        })
        .collect()
}

#[test]
fn several_sources_are_several_actions_of_one_layer() {
    let image = build("FROM base\nWORKDIR /w\nCOPY a* b/ ../c d/\n");
    assert_eq!(image.names()[2..], ["[internal] load build context", "[3/3] COPY a* b/ ../c d/"]);
    let copies: Vec<_> = image
        .copies()
        .iter()
        .map(|copy| (copy.source.as_str(), copy.destination.as_str(), copy.from))
        .collect();
    let context = Input::Vertex(1);
    assert_eq!(copies, [("/a*", "/w/d/", context), ("/b/", "/w/d/", context), ("/c", "/w/d/", context)]);
    assert_eq!(image.new_history()[1], "COPY a* b/ ../c d/ # buildkit");
}

#[test]
fn flags_reach_the_action_and_three_of_them_the_history() {
    let dockerfile = concat!(
        "FROM base\nARG U=app G=5 M=640\n",
        "COPY --chown=$U:$G --chmod=$M --exclude=*.md --exclude=$M --link a /z\n",
        "COPY --parents --chmod=u=rwX,go=rX x/./y /p/\n",
        "ADD --unpack=false a.tar /t\nADD a.tar /u\n"
    );
    let image = build(dockerfile);
    let [first, second, third, fourth] = image.copies()[..] else { panic!("four copies") };
    let owner = Owner { user: OwnerId::Name("app".to_owned()), group: Some(OwnerId::Id(5)) };
    assert_eq!((first.owner.as_ref(), first.mode.as_ref()), (Some(&owner), Some(&ModeChange::Octal(0o640))));
    assert_eq!((&first.exclude[..], first.link), (&["*.md".to_owned(), "$M".to_owned()][..], false));
    assert_eq!((second.parents, second.source.as_str()), (true, "/x/./y"));
    assert_eq!(second.mode, Some(ModeChange::Symbolic("u=rwX,go=rX".to_owned())));
    assert_eq!((first.unpack, third.unpack, fourth.unpack), (false, false, true));
    assert_eq!(
        image.new_history()[1..],
        [
            "COPY --chown=app:5 --chmod=640 a /z # buildkit",
            "COPY --parents --chmod=u=rwX,go=rX x/./y /p/ # buildkit",
            "ADD a.tar /t # buildkit",
            "ADD a.tar /u # buildkit",
        ]
    );
}

#[test]
fn a_link_is_a_layer_of_its_own_on_whatever_is_below() {
    let image = build("FROM base\nCOPY --link f /s/\n");
    assert_eq!(image.names()[2..], ["[2/2] COPY --link f /s/", "[2/2] LINK COPY --link f /s/"]);
    let vertices = image.vertices();
    let Op::File(file) = &vertices[2].op else { panic!("files") };
    assert_eq!(file.base, Input::Scratch);
    assert!(image.copies()[0].link);
    assert_eq!((&vertices[3].op, vertices[3].inputs.len()), (&Op::Merge, 2));
    let image = build("FROM scratch\nCOPY --link f /\n");
    let vertices = image.vertices();
    assert_eq!((&vertices[2].op, vertices[2].inputs.len()), (&Op::Merge, 1));
}

#[test]
fn a_mode_turns_link_off() {
    let image = build("FROM base\nCOPY --link --chmod=755 f /s/\n");
    assert!(!image.copies()[0].link && image.vertices().iter().all(|vertex| vertex.op != Op::Merge));
}

#[test]
fn heredocs_are_files_after_the_ordinary_sources() {
    let image =
        build("FROM base\nENV X=1\nWORKDIR /w\nCOPY --chown=7 <<A f <<'B' d/\n\"$X\" $$ \\$X\nA\n$X\nB\n");
    let Op::File(file) = &image.vertices().last().unwrap().op else { panic!("files") };
    assert!(matches!(file.actions[0], FileAction::Copy(_)));
    let [a, b] = heredocs(&image)[..] else { panic!("two heredocs") };
    assert_eq!((a.path.as_str(), &a.data[..], a.mode), ("/w/d/A", &b"\"1\"  $X\n"[..], 0o644));
    assert_eq!((b.path.as_str(), &b.data[..]), ("/w/d/B", &b"$X\n"[..]));
    assert_eq!(a.owner, Some(Owner { user: OwnerId::Id(7), group: Some(OwnerId::Id(7)) }));
    assert_eq!(image.new_history()[2], "COPY --chown=7 f <<A <<B d/ # buildkit");
}

#[test]
fn a_heredoc_without_directory_may_find_one() {
    let image = build("FROM base\nCOPY <<EOF /tmp\nx\nEOF\n");
    let file = heredocs(&image)[0];
    assert_eq!((file.path.as_str(), file.name_in_directory.as_deref()), ("/tmp", Some("EOF")));
    assert!(!image.names().contains(&"[internal] load build context"), "nothing of the context is needed");
}

#[test]
fn tabs_are_stripped_only_where_asked() {
    let image = build("FROM base\nCOPY <<-EOF /f\n\tx\n\t  y\nEOF\nCOPY <<EOF /g\n\tx\nEOF\n");
    let data: Vec<&[u8]> = heredocs(&image).iter().map(|file| &file.data[..]).collect();
    assert_eq!(data, [&b"x\n  y\n"[..], &b"\tx\n"[..]]);
}

#[test]
fn from_is_a_stage_by_name_or_index_a_context_an_image_or_nothing() {
    let fake = Fake::new().local_context("ctx");
    let dockerfile = concat!(
        "FROM base AS One\nRUN 1\nFROM base\nCOPY --from=ONE /a /\nCOPY --from=0 /a /\nCOPY --from=ctx /a /\n",
        "COPY --from=base /a /\nCOPY --from=scratch /a /\n"
    );
    let image = build_with(dockerfile, &fake);
    let inputs: Vec<(Input, usize)> = image
        .vertices()
        .into_iter()
        .filter_map(|vertex| match &vertex.op {
            Op::File(file) => match &file.actions[0] {
                FileAction::Copy(copy) => Some((copy.from, vertex.inputs.len())),
                _ => None,
            },
            _ => None,
        })
        .collect();
    let vertex = Input::Vertex(1);
    assert_eq!(inputs, [(vertex, 2), (vertex, 2), (vertex, 2), (vertex, 2), (Input::Scratch, 1)]);
    assert_eq!(image.new_history()[0], "COPY /a / # buildkit");
}

#[test]
fn wrong_sources_of_files_are_refused() {
    refused("FROM base\nCOPY --from=7 /x /x\n", 2, "invalid stage index 7");
    refused("FROM base\nCOPY --from=$X /x /x\n", 2, "variable expansion is not supported for --from");
    refused("FROM base\nCOPY --from=nosuch /x /x\n", 2, "nosuch: not found");
    refused("FROM base\nCOPY http://h/x /x\n", 2, "source can't be a URL for COPY");
    refused("FROM base\nCOPY https://h/x.git /x\n", 2, "source can't be a git ref for COPY");
    refused("FROM base\nADD https://h/x.git#-o /x\n", 2, "invalid git reference \"-o\"");
    refused("FROM base\nADD --checksum=md5:00 http://h/x /x\n", 2, "invalid checksum \"md5:00\"");
    refused("FROM base\nADD --checksum=sha256:00 a /x\n", 2, "checksum requires HTTP(S) or Git sources");
    refused(
        "FROM base\nADD --checksum=sha256:00 http://a/b http://a/c /x\n",
        2,
        "checksum can't be specified for multiple",
    );
    refused(
        "FROM base\nCOPY --chmod=08 a /x\n",
        2,
        "invalid chmod parameter: '08'. it should be octal string",
    );
    refused(
        "FROM base\nCOPY \"a b\" /y/\n",
        2,
        "unexpected end of statement while looking for matching double-quote",
    );
}

#[test]
fn a_later_stage_is_no_source() {
    let dockerfile = "FROM base AS a\nCOPY --from=b /x /x\nFROM base AS b\n";
    let request = crate::ConvertRequest { target: Some("a"), ..super::support::request(dockerfile) };
    let error = crate::convert(&request, &Fake::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot copy from stage \"b\", it needs to be defined before current stage \"a\""
    );
    assert_eq!(error.location.unwrap().start, 2);
}

#[test]
fn titles_show_what_variables_stand_for() {
    let image = build("FROM base\nENV D=/dst\ncopy a.txt ${D}/\n");
    assert_eq!(image.names().last(), Some(&"[2/2] COPY a.txt /dst/"));
    let image = build("FROM base\nENV E=\"two words\"\nRUN echo '$E' \"$E\" ${E:-x} $$E \\$E $unset\n");
    let title = "[2/2] RUN echo '$E' \"two words\" two words $$E $E $unset";
    assert_eq!(image.names().last(), Some(&title));
    let image = build("FROM base\nARG A=one\nRUN <<EOF\necho $A\necho\nEOF\nRUN echo ${A\n");
    assert_eq!(image.names()[1..], ["[2/3] RUN <<EOF (echo one...)", "[3/3] RUN echo ${A"]);
}
