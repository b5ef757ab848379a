"""jinja2 as transformers configures it for chat templates: what our templates are compared with.

Needs jinja2 >= 3.1.6; uses transformers' own environment where it is installed, else one made alike.
"""
import datetime
import json

import jinja2
import jinja2.ext
import jinja2.sandbox


def _tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


class _Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_render")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(lineno)

    def _render(self, caller):
        return caller()


class _Namespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        attrs = dict(*args, **kwargs)
        for name in attrs:
            _Namespace._check(name)
        jinja2.utils.Namespace.__init__(self, attrs)

    def __setitem__(self, name, value):
        _Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"underscore-prefixed attribute {name!r}")


def _own_compile(source):
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = _tojson
    env.globals["raise_exception"] = _raise_exception
    env.globals["namespace"] = _Namespace
    return env.from_string(source)


try:
    from transformers.utils.chat_template_utils import _cached_compile_jinja_template as compile_template
    ORACLE = "transformers"
except Exception:
    compile_template = _own_compile
    ORACLE = "jinja2 " + jinja2.__version__


def render(source, context, now=None):
    """Returns ("text", text) or ("error", message)."""
    variables = dict(context)
    if now is not None:
        moment = datetime.datetime.fromtimestamp(now)
        variables["strftime_now"] = moment.strftime
    try:
        return "text", compile_template(source).render(**variables)
    except RecursionError:
        raise
    except Exception as e:  # whatever a template can raise
        return "error", f"{type(e).__name__}: {e}"
