/**
 * `fived completion bash|zsh|fish`: a shell's completions, written from the same table as `--help`, so that they cannot fall behind it.
 * @module
 */
import { Argument, Command } from "commander";
import type { Verb } from "./verb.ts";

const SHELLS = { bash, zsh, fish } as const;

/** The verb `completion`. */
export const completion: Verb = (ended) =>
  new Command("completion")
    .description("print completions for a shell")
    .addArgument(new Argument("<shell>", "which shell").choices(Object.keys(SHELLS)))
    .addHelpText(
      "after",
      '\nbash: eval "$(fived completion bash)"   zsh: the same   fish: fived completion fish | source',
    )
    .action((shell: keyof typeof SHELLS, _flags: object, command: Command) => {
      process.stdout.write(SHELLS[shell](wordsOf(command.parent ?? command)));
      ended(0);
    });

/** What can be completed of one subcommand. */
interface Words {
  readonly verb: string;
  readonly about: string;
  readonly flags: readonly { readonly names: readonly string[]; readonly about: string; readonly takesFile: boolean }[];
  /** Values of its first argument, where there is a fixed set, or its own subcommands. */
  readonly choices: readonly string[];
}

function wordsOf(program: Command): readonly Words[] {
  return program.commands.map((command) => ({
    verb: command.name(),
    about: command.description(),
    flags: flagsOf(command),
    choices: command.registeredArguments[0]?.argChoices ?? command.commands.map((each) => each.name()),
  }));
}

/** The flags of a subcommand and of those below it; of several with one spelling the first. */
function flagsOf(command: Command): Words["flags"] {
  const options = [command, ...command.commands].flatMap((each) => each.createHelp().visibleOptions(each));
  const flags = new Map(options.toReversed().map((option) => [option.flags, option]));
  return [...flags.values()].toReversed().map((option) => ({
    names: [option.short, option.long].filter((name) => name !== undefined),
    about: option.description,
    takesFile: /<(file|keyfile|folder)>/.test(option.flags),
  }));
}

function bash(verbs: readonly Words[]): string {
  const cases = verbs.map(({ verb, flags, choices }) => {
    const words = [...choices, ...flags.flatMap(({ names }) => names)];
    return `    ${verb}) words="${words.join(" ")}" ;;`;
  });
  return `# fived completions for bash: eval "$(fived completion bash)"
_fived() {
  local words current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}"
  COMPREPLY=()
  case "\${COMP_WORDS[1]}:$previous" in
    ${filePatterns(verbs)}) COMPREPLY=($(compgen -f -- "$current")); return ;;
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="${verbs.map(({ verb }) => verb).join(" ")} --help --version"
  else case "\${COMP_WORDS[1]}" in
${cases.join("\n")}
    *) return ;;
  esac fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _fived fived
`;
}

function zsh(verbs: readonly Words[]): string {
  const cases = verbs.map(({ verb, flags, choices }) => {
    const specs = flags.flatMap(({ names, about, takesFile }) =>
      names.map((name) => single(`${name}[${about.replace(/[[\]]/g, " ")}]${takesFile ? ":file:_files" : ""}`)),
    );
    const argument = choices.length > 0 ? single(`1:value:(${choices.join(" ")})`) : single("*:argument:_default");
    return `    ${verb}) _arguments ${[...specs, argument].join(" ")} ;;`;
  });
  return `#compdef fived
# fived completions for zsh: eval "$(fived completion zsh)"
_fived() {
  local -a verbs
  verbs=(
${verbs.map(({ verb, about }) => `    ${single(`${verb}:${about}`)}`).join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe verb verbs
    return
  fi
  local verb=$words[2]
  shift words
  (( CURRENT-- ))
  case $verb in
${cases.join("\n")}
  esac
}
compdef _fived fived
`;
}

function fish(verbs: readonly Words[]): string {
  const lines = verbs.flatMap(({ verb, about, flags, choices }) => {
    const when = `-n ${single(`__fish_seen_subcommand_from ${verb}`)}`;
    return [
      `complete -c fived -f -n __fish_use_subcommand -a ${verb} -d ${single(about)}`,
      ...choices.map((choice) => `complete -c fived -f ${when} -a ${choice}`),
      ...flags.map(({ names, about: meaning, takesFile }) => {
        const letters = names.map((name) => (name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
        return `complete -c fived ${when} ${letters.join(" ")}${takesFile ? " -r -F" : ""} -d ${single(meaning)}`;
      }),
    ];
  });
  return `# fived completions for fish: fived completion fish | source\n${lines.join("\n")}\n`;
}

/** Verb and flag pairs behind which a file comes, as a pattern of a bash case. */
function filePatterns(verbs: readonly Words[]): string {
  const pairs = verbs.flatMap(({ verb, flags }) =>
    flags.filter(({ takesFile }) => takesFile).flatMap(({ names }) => names.map((name) => `${verb}:${name}`)),
  );
  return pairs.join("|");
}

/** In single quotes, for any of the three shells: none of our texts may hold a quote or a backslash. */
function single(text: string): string {
  if (/['\\]/.test(text))
    throw new Error(`Cannot complete with ${text}: a description may hold no quote and no backslash`);
  return `'${text}'`;
}
