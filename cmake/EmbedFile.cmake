# cmake -DFILE=page.html -DNAME=page_html -DOUTPUT=page.cc -P EmbedFile.cmake: a text file as a C++ constant.
file(READ "${FILE}" text)
set(delimiter "embedded")
string(FIND "${text}" ")${delimiter}\"" at)
if(NOT at EQUAL -1)
  message(FATAL_ERROR "${FILE}: holds )${delimiter}\", which ends a raw string")
endif()
file(WRITE "${OUTPUT}" "#include <string_view>\nnamespace moebius::embedded {\nextern const std::string_view ${NAME};\n\
const std::string_view ${NAME} = R\"${delimiter}(${text})${delimiter}\";\n}\n")
