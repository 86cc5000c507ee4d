"""Completes command lines in a shell: `eval "$(vit_jax completion bash)"`."""

import importlib
import shlex
from collections.abc import Iterable, Mapping

from vit_jax import config_files
from vit_jax.__main__ import commands
from vit_jax.arguments import Flag, Parser, flags_of
from vit_jax.command_line import run_cli
from vit_jax.console import show
from vit_jax.usage import table

_DESCRIPTION = """\
Prints a script that completes commands, flags, options of configs and their values.

  bash   echo 'eval "$(vit_jax completion bash)"' >> ~/.bashrc
  zsh    echo 'eval "$(vit_jax completion zsh)"' >> ~/.zshrc       (after compinit)
  fish   vit_jax completion fish > ~/.config/fish/completions/vit_jax.fish

Make it again after an update, or where $VIT_JAX_PLUGINS adds commands or options.
"""

_BASH = """\
_vit_jax() {
  local line=${COMP_LINE:0:COMP_POINT} commands=@COMMANDS@ flags= values=
  local word=${line##*[[:space:]]}
  case ${COMP_WORDS[1]} in
@CASES@
  esac
  if ((COMP_CWORD == 1)); then
    flags=$commands values=
  fi
  local found=$flags
  [[ $word == *=* ]] && found=$values
  COMPREPLY=($(compgen -W "$found" -- "$word"))
  if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
    COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
  fi
  if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
    compopt -o nospace 2> /dev/null  # not in the bash of macOS
  fi
}
complete -o default -F _vit_jax vit_jax
"""
_BASH_CASE = '    @NAME@) flags=@FLAGS@ values=@VALUES@ ;;'

_ZSH = """\
_vit_jax() {
  local -a commands flags values
  commands=(@COMMANDS@)
  if ((CURRENT == 2)); then
    compadd -- $commands
    return
  fi
  case $words[2] in
@CASES@
  esac
  if [[ $PREFIX == *=* ]]; then
    compadd -- $values
    compset -P '*=' && _files
  else
    compadd -S '' -- ${(M)flags:#*=}
    compadd -- ${flags:#*=}
    _files
  fi
}
compdef _vit_jax vit_jax
"""
_ZSH_CASE = '    @NAME@) flags=(@FLAGS@) values=(@VALUES@) ;;'


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  parser = Parser('completion', description=_DESCRIPTION)
  shells = {'bash': _bash, 'zsh': _zsh, 'fish': _fish}
  parser.option('shell', str, 'the shell', choices=tuple(shells))
  args = parser.parse_args(argv)
  show(shells[args.shell](_flags()).rstrip('\n'))
  return 0


def _flags() -> dict[str, list[Flag]]:
  """The flags of every command; those of a plugin's commands are its own affair."""
  found: dict[str, list[Flag]] = {}
  for name, (module, _) in commands().items():
    found[name] = []
    if module.startswith('vit_jax.'):
      found[name] = flags_of(importlib.import_module(module).main)
  options = table.load()
  rows = [*options.rows.values()]
  rows += {row.name: row for family in options.families.values() for row in family.rows}.values()
  topics = (*options.groups, 'all', 'configs', 'sweeps')
  known = {'--help': topics, '--config': tuple(config_files.names())}
  train = [Flag(f.name, f.needs_value, known.get(f.name, f.valid), f.help) for f in found['train']]
  train += [Flag(f'--config.{r.name}', True, r.valid, r.help) for r in rows]
  return found | {'train': train}


def _flag_words(flags: Iterable[Flag]) -> list[str]:
  return [f'{flag.name}=' if flag.needs_value else flag.name for flag in flags]


def _value_words(flags: Iterable[Flag]) -> list[str]:
  return [f'{flag.name}={value}' for flag in flags for value in flag.valid]


def _filled(text: str, **words: str) -> str:
  for name, word in words.items():
    text = text.replace(f'@{name.upper()}@', word)
  return text


def _bash(found: Mapping[str, list[Flag]]) -> str:
  cases = [
    _filled(
      _BASH_CASE,
      name=name,
      flags=shlex.quote(' '.join(_flag_words(flags))),
      values=shlex.quote(' '.join(_value_words(flags))),
    )
    for name, flags in found.items()
  ]
  return _filled(_BASH, commands=shlex.quote(' '.join(found)), cases='\n'.join(cases))


def _zsh(found: Mapping[str, list[Flag]]) -> str:
  cases = [
    _filled(
      _ZSH_CASE,
      name=name,
      flags=shlex.join(_flag_words(flags)),
      values=shlex.join(_value_words(flags)),
    )
    for name, flags in found.items()
  ]
  return _filled(_ZSH, commands=shlex.join(found), cases='\n'.join(cases))


def _fish(found: Mapping[str, list[Flag]]) -> str:
  lines = []
  about = commands()
  for name in found:
    lines.append(
      f'complete -c vit_jax -f -n __fish_use_subcommand -a {name} -d {_fish_quote(about[name][1])}'
    )
  for name, flags in found.items():
    for flag in flags:
      words = ['complete', '-c', 'vit_jax', '-n', f"'__fish_seen_subcommand_from {name}'"]
      words += ['-l', flag.name.removeprefix('--'), '-d', _fish_quote(flag.help)]
      if flag.needs_value:
        words.append('-x' if flag.valid and flag.name != '--config' else '-r')  # -r: or a file
      if flag.valid:
        words += ['-a', _fish_quote(' '.join(flag.valid))]
      lines.append(' '.join(words))
  return '\n'.join(lines)


def _fish_quote(text: str) -> str:
  return "'" + text.replace('\\', '\\\\').replace("'", "\\'") + "'"


if __name__ == '__main__':
  run_cli(main)
