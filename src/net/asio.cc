// Asio's non-template code, compiled once (BOOST_ASIO_SEPARATE_COMPILATION, set with the room).
#include <boost/asio/impl/src.hpp>
