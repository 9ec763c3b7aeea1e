# bash completion for PROGRAM
_PROGRAM() {
    local line word=${COMP_WORDS[COMP_CWORD]} left=${COMP_LINE:0:COMP_POINT}
    # COMP_WORDS is cut at colons and equals signs, names of images are not.
    local -a words
    read -ra words <<< "$left"
    if [[ $left == *[[:space:]] ]]; then
        words+=("")
    fi
    local current=${words[${#words[@]}-1]}
    # What readline takes for done already: it only replaces what follows the last colon or equals sign.
    local done=${current%"$word"}
    [[ $word == [:=] ]] && done=$current word=
    COMPREPLY=()
    while IFS=$'\t' read -r line _; do
        case $line in
            :files) compopt -o default; COMPREPLY=(); return ;;
            :directories) compopt -o dirnames; COMPREPLY=(); return ;;
            "$current"*) COMPREPLY+=("${line#"$done"}") ;;
        esac
    done < <(PROGRAM __complete "${words[@]:1}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -F _PROGRAM PROGRAM
