"""Small C++ and Python functions: each task in both languages, with names, constants and wording varied."""

import random

from skills import chat, held_text, pick

LISTS = ["values", "numbers", "items", "data", "xs", "nums", "list_in"]
SCALARS = ["n", "value", "x", "num", "k"]
STRINGS = ["text", "s", "word", "line", "str_in"]

# task: (what it does, possible names, C++ source, Python source); {f} name, {v} argument, {c} constant
TASKS = [
    ("returns the sum of a list of integers", ["sum_list", "total", "add_all"], LISTS,
     "int {f}(const std::vector<int>& {v}) {{\n  int sum = 0;\n  for (int x : {v}) {{\n    sum += x;\n  }}\n  return sum;\n}}",
     "def {f}({v}):\n    result = 0\n    for item in {v}:\n        result += item\n    return result"),
    ("returns the largest element of a list", ["find_max", "largest", "max_value"], LISTS,
     "int {f}(const std::vector<int>& {v}) {{\n  int best = {v}[0];\n  for (int x : {v}) {{\n    if (x > best) {{\n      best = x;\n    }}\n  }}\n  return best;\n}}",
     "def {f}({v}):\n    best = {v}[0]\n    for item in {v}:\n        if item > best:\n            best = item\n    return best"),
    ("returns the smallest element of a list", ["find_min", "smallest", "min_value"], LISTS,
     "int {f}(const std::vector<int>& {v}) {{\n  int best = {v}[0];\n  for (int x : {v}) {{\n    if (x < best) {{\n      best = x;\n    }}\n  }}\n  return best;\n}}",
     "def {f}({v}):\n    best = {v}[0]\n    for item in {v}:\n        if item < best:\n            best = item\n    return best"),
    ("counts the even numbers in a list", ["count_even", "num_even", "evens"], LISTS,
     "int {f}(const std::vector<int>& {v}) {{\n  int count = 0;\n  for (int x : {v}) {{\n    if (x % 2 == 0) {{\n      ++count;\n    }}\n  }}\n  return count;\n}}",
     "def {f}({v}):\n    return sum(1 for item in {v} if item % 2 == 0)"),
    ("counts the elements of a list that are greater than {c}", ["count_above", "num_greater", "above"], LISTS,
     "int {f}(const std::vector<int>& {v}) {{\n  int count = 0;\n  for (int x : {v}) {{\n    if (x > {c}) {{\n      ++count;\n    }}\n  }}\n  return count;\n}}",
     "def {f}({v}):\n    return sum(1 for item in {v} if item > {c})"),
    ("returns the mean of a list of numbers", ["mean", "average", "mean_of"], LISTS,
     "double {f}(const std::vector<double>& {v}) {{\n  double sum = 0.0;\n  for (double x : {v}) {{\n    sum += x;\n  }}\n  return sum / {v}.size();\n}}",
     "def {f}({v}):\n    return sum({v}) / len({v})"),
    ("multiplies every element of a list by {c}", ["scale", "multiply_all", "times_each"], LISTS,
     "std::vector<int> {f}(std::vector<int> {v}) {{\n  for (int& x : {v}) {{\n    x *= {c};\n  }}\n  return {v};\n}}",
     "def {f}({v}):\n    return [item * {c} for item in {v}]"),
    ("adds {c} to every element of a list", ["shift", "add_to_each", "offset_all"], LISTS,
     "std::vector<int> {f}(std::vector<int> {v}) {{\n  for (int& x : {v}) {{\n    x += {c};\n  }}\n  return {v};\n}}",
     "def {f}({v}):\n    return [item + {c} for item in {v}]"),
    ("returns the sum of the squares of a list", ["sum_squares", "square_sum", "sum_of_squares"], LISTS,
     "int {f}(const std::vector<int>& {v}) {{\n  int sum = 0;\n  for (int x : {v}) {{\n    sum += x * x;\n  }}\n  return sum;\n}}",
     "def {f}({v}):\n    return sum(item * item for item in {v})"),
    ("reverses a list", ["reverse_list", "reversed_copy", "flip"], LISTS,
     "std::vector<int> {f}(std::vector<int> {v}) {{\n  std::reverse({v}.begin(), {v}.end());\n  return {v};\n}}",
     "def {f}({v}):\n    return {v}[::-1]"),
    ("checks whether a list is sorted", ["is_sorted", "in_order", "check_sorted"], LISTS,
     "bool {f}(const std::vector<int>& {v}) {{\n  for (size_t i = 1; i < {v}.size(); ++i) {{\n    if ({v}[i - 1] > {v}[i]) {{\n      return false;\n    }}\n  }}\n  return true;\n}}",
     "def {f}({v}):\n    for i in range(1, len({v})):\n        if {v}[i - 1] > {v}[i]:\n            return False\n    return True"),
    ("finds the index of {c} in a list, or -1", ["index_of", "find_index", "position"], LISTS,
     "int {f}(const std::vector<int>& {v}) {{\n  for (size_t i = 0; i < {v}.size(); ++i) {{\n    if ({v}[i] == {c}) {{\n      return static_cast<int>(i);\n    }}\n  }}\n  return -1;\n}}",
     "def {f}({v}):\n    for i, item in enumerate({v}):\n        if item == {c}:\n            return i\n    return -1"),
    ("removes duplicates from a list", ["unique", "dedupe", "distinct"], LISTS,
     "std::vector<int> {f}(std::vector<int> {v}) {{\n  std::sort({v}.begin(), {v}.end());\n  {v}.erase(std::unique({v}.begin(), {v}.end()), {v}.end());\n  return {v};\n}}",
     "def {f}({v}):\n    return sorted(set({v}))"),
    ("sorts a list with bubble sort", ["bubble_sort", "sort_list", "sorted_copy"], LISTS,
     "void {f}(std::vector<int>& {v}) {{\n  for (size_t i = 0; i < {v}.size(); ++i) {{\n    for (size_t j = 1; j < {v}.size() - i; ++j) {{\n      if ({v}[j - 1] > {v}[j]) {{\n        std::swap({v}[j - 1], {v}[j]);\n      }}\n    }}\n  }}\n}}",
     "def {f}({v}):\n    for i in range(len({v})):\n        for j in range(1, len({v}) - i):\n            if {v}[j - 1] > {v}[j]:\n                {v}[j - 1], {v}[j] = {v}[j], {v}[j - 1]\n    return {v}"),
    ("computes the factorial of a number", ["factorial", "fact", "compute_factorial"], SCALARS,
     "long long {f}(int {v}) {{\n  long long result = 1;\n  for (int i = 2; i <= {v}; ++i) {{\n    result *= i;\n  }}\n  return result;\n}}",
     "def {f}({v}):\n    result = 1\n    for i in range(2, {v} + 1):\n        result *= i\n    return result"),
    ("computes the Fibonacci number of an index", ["fibonacci", "fib", "nth_fibonacci"], SCALARS,
     "long long {f}(int {v}) {{\n  long long a = 0;\n  long long b = 1;\n  for (int i = 0; i < {v}; ++i) {{\n    long long next = a + b;\n    a = b;\n    b = next;\n  }}\n  return a;\n}}",
     "def {f}({v}):\n    a, b = 0, 1\n    for _ in range({v}):\n        a, b = b, a + b\n    return a"),
    ("checks whether a number is prime", ["is_prime", "prime", "check_prime"], SCALARS,
     "bool {f}(int {v}) {{\n  if ({v} < 2) {{\n    return false;\n  }}\n  for (int i = 2; i * i <= {v}; ++i) {{\n    if ({v} % i == 0) {{\n      return false;\n    }}\n  }}\n  return true;\n}}",
     "def {f}({v}):\n    if {v} < 2:\n        return False\n    i = 2\n    while i * i <= {v}:\n        if {v} % i == 0:\n            return False\n        i += 1\n    return True"),
    ("checks whether a number is divisible by {c}", ["is_divisible", "divides", "divisible"], SCALARS,
     "bool {f}(int {v}) {{\n  return {v} % {c} == 0;\n}}", "def {f}({v}):\n    return {v} % {c} == 0"),
    ("returns the sum of the digits of a number", ["digit_sum", "sum_digits", "add_digits"], SCALARS,
     "int {f}(int {v}) {{\n  int sum = 0;\n  while ({v} > 0) {{\n    sum += {v} % 10;\n    {v} /= 10;\n  }}\n  return sum;\n}}",
     "def {f}({v}):\n    total = 0\n    while {v} > 0:\n        total += {v} % 10\n        {v} //= 10\n    return total"),
    ("raises a number to the power {c}", ["power", "raise_to", "to_power"], SCALARS,
     "long long {f}(int {v}) {{\n  long long result = 1;\n  for (int i = 0; i < {c}; ++i) {{\n    result *= {v};\n  }}\n  return result;\n}}",
     "def {f}({v}):\n    return {v} ** {c}"),
    ("clamps a number to the range from 0 to {c}", ["clamp", "limit", "bound"], SCALARS,
     "int {f}(int {v}) {{\n  if ({v} < 0) {{\n    return 0;\n  }}\n  if ({v} > {c}) {{\n    return {c};\n  }}\n  return {v};\n}}",
     "def {f}({v}):\n    return max(0, min({v}, {c}))"),
    ("returns the absolute value of a number", ["absolute", "abs_value", "magnitude"], SCALARS,
     "int {f}(int {v}) {{\n  return {v} < 0 ? -{v} : {v};\n}}", "def {f}({v}):\n    return -{v} if {v} < 0 else {v}"),
    ("counts the vowels in a string", ["count_vowels", "vowels", "num_vowels"], STRINGS,
     "int {f}(const std::string& {v}) {{\n  int count = 0;\n  for (char c : {v}) {{\n    if (std::string(\"aeiou\").find(c) != std::string::npos) {{\n      ++count;\n    }}\n  }}\n  return count;\n}}",
     "def {f}({v}):\n    return sum(1 for c in {v} if c in \"aeiou\")"),
    ("reverses a string", ["reverse_string", "backwards", "mirror"], STRINGS,
     "std::string {f}(const std::string& {v}) {{\n  return std::string({v}.rbegin(), {v}.rend());\n}}", "def {f}({v}):\n    return {v}[::-1]"),
    ("checks whether a string is a palindrome", ["is_palindrome", "palindrome", "reads_same"], STRINGS,
     "bool {f}(const std::string& {v}) {{\n  return std::equal({v}.begin(), {v}.end(), {v}.rbegin());\n}}", "def {f}({v}):\n    return {v} == {v}[::-1]"),
    ("repeats a string {c} times", ["repeat", "repeat_text", "copies"], STRINGS,
     "std::string {f}(const std::string& {v}) {{\n  std::string out;\n  for (int i = 0; i < {c}; ++i) {{\n    out += {v};\n  }}\n  return out;\n}}",
     "def {f}({v}):\n    return {v} * {c}"),
    ("counts the words in a string", ["count_words", "word_count", "num_words"], STRINGS,
     "int {f}(const std::string& {v}) {{\n  std::istringstream in({v});\n  std::string word;\n  int count = 0;\n  while (in >> word) {{\n    ++count;\n  }}\n  return count;\n}}",
     "def {f}({v}):\n    return len({v}.split())"),
    ("converts a string to upper case", ["to_upper", "upper", "shout"], STRINGS,
     "std::string {f}(std::string {v}) {{\n  for (char& c : {v}) {{\n    c = std::toupper(c);\n  }}\n  return {v};\n}}", "def {f}({v}):\n    return {v}.upper()"),
]
LANGUAGES = [("C++", "cpp", 3), ("Python", "python", 4)]
PROMPTS = ["Write a {l} function that {t}.", "In {l}, write a function that {t}.", "Please write a {l} function which {t}.",
           "Show me a {l} function that {t}.", "How do I write a {l} function that {t}?", "I need a {l} function that {t}.",
           "Write a {l} function named {f} that {t}.", "Implement a {l} function `{f}` that {t}.",
           "Give me a {l} function called {f} that {t}.",
           "Write a {l} function named {f} with the argument {v} that {t}.",
           "Implement a {l} function `{f}({v})` that {t}.", "Write `{f}({v})` in {l}: a function that {t}."]


def draft(rng):
    """A prompt, its answer, the bare source, and whether the source is a task's plainest form (never held out).

    A prompt that does not name the function or its argument gets the task's first names: the prompt decides the source.
    """
    task = pick(rng, TASKS)
    what, names, args = task[:3]
    name, fence, source = pick(rng, LANGUAGES)
    prompt = pick(rng, PROMPTS)
    f = pick(rng, names) if "{f}" in prompt else names[0]
    v = pick(rng, args) if "{v}" in prompt else args[0]
    c = rng.randint(2, 20)
    body = task[source].format(f=f, v=v, c=c)
    plain = f == names[0] and v == args[0] and "{c}" not in what
    return prompt.format(l=name, t=what.format(c=c), f=f, v=v), f"```{fence}\n{body}\n```", body, plain


def make(rng, held=False):
    """A prompt, its answer and the bare source, from the held-out sources or from the others."""
    while True:
        question, answer, body, plain = draft(rng)
        if (held_text(body) and not plain) == held:
            return question, answer, body


def sample(rng):
    question, answer, body = make(rng)
    if rng.random() < 0.12:
        return "text", body
    return chat(question, answer)


def test_items(n, seed=4):
    rng = random.Random(f"test {seed}")
    items = []
    for _ in range(n):
        question, answer, body = make(rng, held=True)
        items.append({"messages": [{"role": "user", "content": question}], "reference": answer, "body": body})
    return items
